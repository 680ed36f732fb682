// Engine.IO and Socket.IO as the reference clients from npm speak them, over every transport,
// against the conformance application that runs at CONFORMANCE_URL.

import assert from "node:assert/strict";
import { once } from "node:events";
import { createRequire } from "node:module";
import { connect, createServer } from "node:net";
import { describe, test } from "node:test";
import { setTimeout as sleep } from "node:timers/promises";

import * as newestEngineIo from "engine.io-client";
import { io as newestIo } from "socket.io-client";
import { io as oldestIo } from "socket.io-client-oldest";

const url = setting("CONFORMANCE_URL");

/** What the conformance application is configured with. */
const pingInterval = 300;
const pingTimeout = 200;
const maxPayload = 1_000_000;

const require = createRequire(import.meta.url);
// The Engine.IO client that the oldest Socket.IO client brings, which npm nests below it.
const requireOldest = createRequire(require.resolve("socket.io-client-oldest"));

const clients = [
    { name: `socket.io-client ${version(require, "socket.io-client")}`, io: newestIo },
    { name: `socket.io-client ${version(require, "socket.io-client-oldest")}`, io: oldestIo },
];

const engines = [
    {
        name: `engine.io-client ${version(require, "engine.io-client")}`,
        Socket: newestEngineIo.Socket,
    },
    {
        name: `engine.io-client ${version(requireOldest, "engine.io-client")}`,
        Socket: requireOldest("engine.io-client").Socket,
    },
];

const upgrading = ["polling", "websocket"];
const choices = [["polling"], ["websocket"], upgrading];

const unicode = [
    "",
    "Grüße aus Köln",
    "日本語、한국어, العربية",
    "emoji 😀 👩‍👩‍👧‍👦 🇪🇺 e\u0301",
    'quotes " and \\ and \n newlines',
    "separators \u001e \u0000 \u2028",
    '{"looks":"like JSON"}',
    "2/custom,",
];

function setting(name) {
    const value = process.env[name];
    if (!value) {
        throw new Error(`${name} must be set: it describes the server to test`);
    }
    return value;
}

function version(require, name) {
    return require(`${name}/package.json`).version;
}

/** A test with a deadline, so that nothing hangs. */
function scenario(name, play) {
    test(name, { timeout: 20_000 }, play);
}

// Sockets

/** A Socket.IO socket over a connection of its own, which closes with the test. */
function newSocket(t, { io }, transports, { at = url, namespace = "/", ...options } = {}) {
    const socket = io(at + namespace, {
        transports,
        forceNew: true,
        reconnectionDelay: 10,
        reconnectionDelayMax: 50,
        ...options,
    });
    t.after(() => socket.disconnect());
    return socket;
}

/** A connected one, and upgraded if its transports allow it. */
async function connected(t, client, transports, options) {
    const socket = newSocket(t, client, transports, options);
    await event(socket, "connect");
    if (transports === upgrading) {
        await upgraded(socket.io.engine);
    }
    assert.equal(socket.io.engine.transport.name, transports.at(-1));
    return socket;
}

/** Wait for an Engine.IO socket to be on WebSocket. */
async function upgraded(engine) {
    while (engine.transport.name !== "websocket") {
        await event(engine, "upgrade");
    }
}

/** The arguments of the next event of this name. */
function event(emitter, name, within = 5000) {
    return new Promise((resolve, reject) => {
        const listener = (...args) => {
            clearTimeout(timer);
            resolve(args);
        };
        const timer = setTimeout(() => {
            emitter.off(name, listener);
            reject(new Error(`no "${name}" within ${within} ms`));
        }, within);
        emitter.once(name, listener);
    });
}

/** Send an event, and give the arguments that come back. */
async function echo(socket, ...args) {
    const back = event(socket, "message-back");
    socket.emit("message", ...args);
    return back;
}

/** Send an event that asks for an acknowledgement, and give the acknowledgement's arguments. */
function ask(socket, ...args) {
    return new Promise((resolve, reject) => {
        const timer = setTimeout(() => reject(new Error("no acknowledgement")), 5000);
        socket.emit("message-with-ack", ...args, (...answer) => {
            clearTimeout(timer);
            resolve(answer);
        });
    });
}

/** The same values with all that is binary as a Buffer: clients differ in what they give. */
function buffers(value) {
    if (value instanceof ArrayBuffer) {
        return Buffer.from(value);
    }
    if (ArrayBuffer.isView(value)) {
        return Buffer.from(value.buffer, value.byteOffset, value.byteLength);
    }
    if (Array.isArray(value)) {
        return value.map(buffers);
    }
    if (value !== null && typeof value === "object") {
        return Object.fromEntries(Object.entries(value).map(([key, item]) => [key, buffers(item)]));
    }
    return value;
}

function assertSame(actual, expected) {
    assert.deepEqual(buffers(actual), buffers(expected));
}

/** Fail without printing long payloads. */
function assertSameBytes(actual, expected, what) {
    const [one, other] = [Buffer.from(actual), Buffer.from(expected)];
    assert.ok(one.equals(other), `${what}: ${one.length} bytes for ${other.length}, or others`);
}

/** Bytes that repeat in no short period. */
function someBytes(length) {
    return Uint8Array.from({ length }, (_, index) => (index * 31 + (index >> 8)) & 0xff);
}

/** The status and answer of a GET for a session, as polling clients make it. */
async function poll(path, sid) {
    const query = `EIO=4&transport=polling&sid=${sid}`;
    const response = await fetch(`${url}${path}?${query}`);
    return { status: response.status, text: await response.text() };
}

async function post(path, sid, body) {
    const query = `EIO=4&transport=polling&sid=${sid}`;
    const headers = { "content-type": "text/plain;charset=UTF-8" };
    const response = await fetch(`${url}${path}?${query}`, { method: "POST", headers, body });
    await response.text();
    return response.status;
}

async function handshake(path) {
    const response = await fetch(`${url}${path}?EIO=4&transport=polling`);
    const packet = await response.text();
    assert.equal(packet[0], "0", packet);
    return JSON.parse(packet.slice(1));
}

/** The server by way of a proxy that lets WebSockets through so much later. */
async function withSlowWebSockets(t, delay) {
    const streams = new Set();
    const proxy = createServer((near) => {
        const far = connect({ host: new URL(url).hostname, port: new URL(url).port });
        for (const [one, other] of [
            [near, far],
            [far, near],
        ]) {
            streams.add(one);
            one.on("error", () => other.destroy());
            one.on("close", () => other.destroy());
        }
        far.pipe(near);
        near.once("data", async (head) => {
            near.pause();
            if (/^upgrade: websocket/im.test(head.toString("latin1"))) {
                await sleep(delay);
            }
            far.write(head);
            near.pipe(far);
        });
    });
    proxy.listen(0, "127.0.0.1");
    await once(proxy, "listening");
    t.after(() => {
        streams.forEach((stream) => stream.destroy());
        proxy.close();
    });
    return `http://127.0.0.1:${proxy.address().port}`;
}

/**
 * Send numbers, a few each millisecond: so many at least, and on until some went out over the
 * WebSocket. Give them, and how many went out over each transport.
 */
async function sendNumbers(engine, count, send) {
    const sent = { polling: 0, websocket: 0, numbers: [] };
    for (let number = 0; number < count || (!sent.websocket && number < 20 * count); number += 1) {
        sent[engine().transport.name] += 1;
        sent.numbers.push(number);
        send(number);
        if (number % 5 === 4) {
            await sleep(1);
        }
    }
    return sent;
}

/** Wait until so many have come. */
async function filled(list, count) {
    const deadline = performance.now() + 10_000;
    while (list.length < count && performance.now() < deadline) {
        await sleep(5);
    }
}

const numbers = Array.from({ length: 500 }, (_, number) => number);

// The server's configuration

scenario("the handshake tells the configuration and offers the upgrade", async () => {
    for (const path of ["/engine.io/", "/socket.io/"]) {
        const { sid, ...rest } = await handshake(path);
        assert.equal(typeof sid, "string");
        assert.deepEqual(rest, {
            upgrades: ["websocket"],
            pingInterval,
            pingTimeout,
            maxPayload,
        });
    }
});

scenario("a POST over maxPayload is answered with an error", async () => {
    const { sid } = await handshake("/engine.io/");
    assert.equal(await post("/engine.io/", sid, `4${"x".repeat(maxPayload)}`), 413);
});

// Socket.IO

for (const client of clients) {
    for (const transports of choices) {
        describe(`${client.name} over ${transports.join(" and ")}`, () => {
            socketScenarios(client, transports);
        });
    }
    describe(`${client.name}, upgrading`, () => {
        upgradeScenarios(client);
    });
}

describe("idle for many pings", { concurrency: true }, () => {
    for (const client of clients) {
        for (const transports of choices) {
            scenario(`${client.name} over ${transports.join(" and ")}`, async (t) => {
                const socket = await connected(t, client, transports);
                const { id } = socket;
                const lost = [];
                let pings = 0;
                socket.on("disconnect", (reason) => lost.push(reason));
                socket.io.engine.on("packet", ({ type }) => {
                    pings += type === "ping";
                });

                await sleep(2000);

                assert.deepEqual(lost, []);
                assert.ok(pings >= 4, `there were ${pings} pings`);
                assert.deepEqual(await echo(socket, "still here"), ["still here"]);
                assert.equal(socket.id, id);
            });
        }
    }
});

function socketScenarios(client, transports) {
    const open = (t, options) => connected(t, client, transports, options);

    scenario("connects, and its auth arrives", async (t) => {
        const auth = { token: "s3cret 😀", nested: { list: [1, null, true] } };
        const socket = newSocket(t, client, transports, { auth });
        const greeted = event(socket, "auth");

        await event(socket, "connect");

        assert.equal(typeof socket.id, "string");
        assert.notEqual(socket.id, socket.io.engine.id);
        assert.deepEqual(await greeted, [auth]);
        if (transports === upgrading) {
            await upgraded(socket.io.engine);
        }
        assert.equal(socket.io.engine.transport.name, transports.at(-1));
    });

    scenario("without auth an empty one arrives", async (t) => {
        const socket = newSocket(t, client, transports);
        assert.deepEqual(await event(socket, "auth"), [{}]);
    });

    scenario("messages come back as they were sent", async (t) => {
        const socket = await open(t);
        for (const args of [
            [],
            ["one"],
            ["one", "two", "three"],
            [0, -1, 1.5, 1e21, 5e-324, Number.MAX_SAFE_INTEGER],
            [true, false, null],
            [[], {}, [[[]]], { "": { a: [{ b: [1, "2", null] }] } }],
            unicode,
            [Object.fromEntries(unicode.map((text) => [text, text]))],
        ]) {
            assert.deepEqual(await echo(socket, ...args), args);
        }
    });

    scenario("events and acknowledgements carry binary", async (t) => {
        const socket = await open(t);
        const bytes = someBytes(300);
        for (const args of [
            [Buffer.from([0, 1, 254, 255])],
            [bytes],
            [bytes.buffer],
            [bytes.subarray(7, 107)],
            [Buffer.alloc(0)],
            ["text", Buffer.from("one"), { deep: [bytes.buffer, { er: bytes }] }, 4, "emoji 😀"],
            Array.from({ length: 10 }, (_, index) => Buffer.from([index])),
        ]) {
            assertSame(await echo(socket, ...args), args);
            assertSame(await ask(socket, ...args), args);
        }
    });

    scenario("acknowledgements reach their own questions", async (t) => {
        const socket = await open(t);
        assert.deepEqual(await ask(socket), []);
        assert.deepEqual(await ask(socket, "one", 2, { three: [3] }, "vier 😀"), [
            "one",
            2,
            { three: [3] },
            "vier 😀",
        ]);
        const answers = await Promise.all(
            numbers.slice(0, 50).map((number) => ask(socket, number, Buffer.from([number]))),
        );
        assertSame(
            answers,
            numbers.slice(0, 50).map((number) => [number, Buffer.from([number])]),
        );
    });

    scenario("500 messages in one go come back in order", async (t) => {
        const socket = newSocket(t, client, transports);
        const received = [];
        socket.on("message-back", (number) => received.push(number));
        await event(socket, "connect");

        numbers.forEach((number) => socket.emit("message", number));
        await filled(received, numbers.length);
        await ask(socket, "all of them");

        assert.deepEqual(received, numbers);
    });

    scenario("text and binary in turn keep their order", async (t) => {
        const socket = newSocket(t, client, transports);
        const received = [];
        socket.on("message-back", (...args) => received.push(args));
        await event(socket, "connect");
        const sent = numbers
            .slice(0, 100)
            .map((number) => (number % 2 ? [number, Buffer.from(`${number}`)] : [number]));

        sent.forEach((args) => socket.emit("message", ...args));
        await filled(received, sent.length);

        assertSame(received, sent);
    });

    scenario("two namespaces share a connection, and one of them leaves", async (t) => {
        const socket = await open(t, { auth: { of: "main" } });
        const custom = socket.io.socket("/custom", { auth: { of: "custom" } });
        t.after(() => custom.disconnect());
        assert.deepEqual(await event(custom, "auth"), [{ of: "custom" }]);
        const first = custom.id;
        const { engine } = socket.io;
        assert.notEqual(first, socket.id);
        assert.deepEqual(await echo(socket, "both"), ["both"]);

        custom.disconnect();

        assert.equal(custom.connected, false);
        assert.deepEqual(await echo(socket, "alone"), ["alone"]);
        const greetedAgain = event(custom, "auth");
        custom.connect();
        assert.deepEqual(await greetedAgain, [{ of: "custom" }]);
        assert.notEqual(custom.id, first);

        const left = socket.id;
        socket.disconnect();
        // The stock server may take a packet that comes at once before the disconnect.
        await sleep(50);
        const back = event(socket, "connect");
        socket.connect();
        await back;
        assert.notEqual(socket.id, left);
        assert.deepEqual(await echo(socket, "both again"), ["both again"]);
        assert.ok(socket.io.engine === engine, "there was another connection");
    });

    scenario("an unknown namespace is refused, and the others stay", async (t) => {
        const refused = newSocket(t, client, transports, { namespace: "/unknown" });
        const [error] = await event(refused, "connect_error");
        assert.equal(error.message, "Invalid namespace");
        assert.equal(refused.connected, false);

        const socket = await open(t);
        const other = socket.io.socket("/unknown");
        t.after(() => other.disconnect());
        const [refusal] = await event(other, "connect_error");
        assert.equal(refusal.message, "Invalid namespace");
        assert.deepEqual(await echo(socket, "here"), ["here"]);
    });

    scenario("large payloads go both ways", async (t) => {
        const socket = await open(t);
        const text = "0123456789".repeat(90_000);
        const bytes = someBytes(700_000);

        const [textBack] = await echo(socket, text);
        assertSameBytes(textBack, text, "text");
        const [bytesBack] = await echo(socket, bytes);
        assertSameBytes(bytesBack, bytes, "binary");
        const [answer] = await ask(socket, bytes);
        assertSameBytes(answer, bytes, "acknowledgement");
    });

    scenario("a payload over maxPayload ends the connection; the client comes back", async (t) => {
        const socket = await open(t);
        const { id } = socket;
        const lost = event(socket, "disconnect");

        socket.emit("message", "x".repeat(maxPayload + 1));

        const [reason] = await lost;
        const expected = transports.at(-1) === "polling" ? "transport error" : "transport close";
        assert.equal(reason, expected);
        await event(socket, "connect");
        assert.notEqual(socket.id, id);
        assert.deepEqual(await echo(socket, "back"), ["back"]);
    });

    scenario("it comes back when its connection closes", async (t) => {
        const auth = { token: "kept" };
        const socket = await open(t, { auth });
        const ids = [socket.id];
        for (let round = 0; round < 3; round += 1) {
            const again = event(socket, "connect");
            const greeted = event(socket, "auth");
            const [lost] = await Promise.all([
                event(socket, "disconnect"),
                socket.io.engine.close(),
            ]);
            assert.equal(lost[0], "forced close");
            // What is sent in between waits for the connection.
            const answer = ask(socket, round);
            await again;
            assert.deepEqual(await greeted, [auth]);
            assert.deepEqual(await answer, [round]);
            ids.push(socket.id);
        }
        assert.equal(new Set(ids).size, 4, "an id stands for two connections");
    });

    scenario("it disconnects, and its session is gone", async (t) => {
        const socket = await open(t);
        const { id: sid } = socket.io.engine;
        const lost = event(socket, "disconnect");

        socket.disconnect();

        assert.deepEqual((await lost)[0], "io client disconnect");
        // Sooner than a session would end for missing pongs.
        await sleep(0.8 * pingTimeout);
        const { status, text } = await poll("/socket.io/", sid);
        assert.equal(status, 400);
        assert.equal(JSON.parse(text).code, 1, text);
        assert.equal(socket.connected, false);

        socket.connect();
        await event(socket, "connect");
        assert.deepEqual(await echo(socket, "here again"), ["here again"]);
    });
}

function upgradeScenarios(client) {
    for (const delay of [0, 15, 40]) {
        scenario(`500 messages across an upgrade, ${delay} ms late`, async (t) => {
            const at = await withSlowWebSockets(t, delay);
            const socket = newSocket(t, client, upgrading, { at });
            const received = [];
            socket.on("message-back", (number) => received.push(number));
            await event(socket, "connect");

            const sent = await sendNumbers(
                () => socket.io.engine,
                numbers.length,
                (number) => socket.emit("message", number),
            );
            await filled(received, sent.numbers.length);
            await ask(socket, "all of them");

            assert.deepEqual(received, sent.numbers);
            assert.equal(socket.io.engine.transport.name, "websocket");
            assert.ok(sent.websocket > 0, "all were sent before the upgrade");
        });
    }

    scenario("binary across an upgrade", async (t) => {
        const at = await withSlowWebSockets(t, 15);
        const socket = newSocket(t, client, upgrading, { at });
        const received = [];
        socket.on("message-back", (...args) => received.push(args));
        await event(socket, "connect");
        const message = (number) => [number, Buffer.from(`${number}`), { too: someBytes(100) }];

        const sent = await sendNumbers(
            () => socket.io.engine,
            numbers.length,
            (number) => socket.emit("message", ...message(number)),
        );
        await filled(received, sent.numbers.length);

        assertSame(received, sent.numbers.map(message));
        assert.equal(socket.io.engine.transport.name, "websocket");
    });

    scenario("the session stays the same", async (t) => {
        const at = await withSlowWebSockets(t, 100);
        const socket = newSocket(t, client, upgrading, { at });
        await event(socket, "connect");
        const { engine, id } = { engine: socket.io.engine, id: socket.id };
        const sid = engine.id;
        assert.equal(engine.transport.name, "polling");
        assert.deepEqual(await echo(socket, "polling"), ["polling"]);

        await upgraded(engine);

        assert.deepEqual(await echo(socket, "websocket"), ["websocket"]);
        assert.deepEqual([socket.io.engine, engine.id, socket.id], [engine, sid, id]);
    });

    scenario("an upgrade that takes longer than a ping", async (t) => {
        const at = await withSlowWebSockets(t, 2 * pingInterval);
        const socket = newSocket(t, client, upgrading, { at });
        await event(socket, "connect");
        const { id } = socket;

        await upgraded(socket.io.engine);
        await sleep(2 * pingInterval);

        assert.deepEqual(await echo(socket, "here"), ["here"]);
        assert.equal(socket.id, id);
    });
}

// Engine.IO

for (const engine of engines) {
    for (const transports of choices) {
        describe(`${engine.name} over ${transports.join(" and ")}`, () => {
            engineScenarios(engine, transports);
        });
    }
    scenario(`${engine.name}: 500 messages across an upgrade`, async (t) => {
        const at = await withSlowWebSockets(t, 15);
        const socket = newEngine(t, engine, upgrading, at);
        const received = [];
        socket.on("message", (data) => received.push(data));
        await event(socket, "open");
        // As soon as it is open, so that the first ones go before the upgrade.
        const message = (number) => (number % 10 ? `${number}` : Buffer.from(`${number}`));

        const sent = await sendNumbers(
            () => socket,
            numbers.length,
            (number) => socket.send(message(number)),
        );
        await filled(received, sent.numbers.length);
        await sleep(50);

        assertSame(received, sent.numbers.map(message));
        assert.ok(sent.websocket > 0, "all were sent before the upgrade");
    });
}

// The transports over `fetch` and the platform's own WebSocket, as browsers and others have them.
describe(`${engines[0].name} over fetch`, () => {
    engineScenarios(engines[0], [newestEngineIo.Fetch]);
});

function newEngine(t, { Socket }, transports, at = url) {
    const socket = new Socket(at, { transports });
    t.after(() => socket.close());
    return socket;
}

function engineScenarios(engine, transports) {
    const open = async (t) => {
        const socket = newEngine(t, engine, transports);
        await event(socket, "open");
        return socket;
    };
    const back = async (socket, data) => {
        const message = event(socket, "message");
        socket.send(data);
        // Clients give an empty message as undefined.
        return (await message)[0] ?? "";
    };

    scenario("text and binary come back", async (t) => {
        const socket = await open(t);
        if (transports === upgrading) {
            await upgraded(socket);
        }
        // Over polling, U+001E separates packets: no text may hold it.
        for (const text of unicode.filter((text) => !text.includes("\u001e"))) {
            assert.equal(await back(socket, text), text);
        }
        for (const bytes of [Buffer.from([0, 255, 30]), Buffer.alloc(0), someBytes(5000)]) {
            assertSame(await back(socket, bytes), bytes);
        }
        assertSame(await back(socket, someBytes(10).buffer), someBytes(10));
        const large = someBytes(700_000);
        assertSameBytes(await back(socket, large), large, "binary");
    });

    scenario("messages in one go keep their order", async (t) => {
        const socket = await open(t);
        const received = [];
        socket.on("message", (data) => received.push(data));
        const sent = numbers.map((number) => (number % 3 ? `${number}` : Buffer.from([number])));

        sent.forEach((data) => socket.send(data));
        await filled(received, sent.length);

        assertSame(received, sent);
    });

    scenario("it closes, and its session is gone", async (t) => {
        const socket = await open(t);
        if (transports === upgrading) {
            await upgraded(socket);
        }
        const { id } = socket;
        const closed = event(socket, "close");

        socket.close();

        assert.equal((await closed)[0], "forced close");
        await sleep(0.8 * pingTimeout);
        const { status, text } = await poll("/engine.io/", id);
        assert.equal(status, 400);
        assert.equal(JSON.parse(text).code, 1, text);
    });

    if (transports === upgrading) {
        scenario("it upgrades", async (t) => {
            const socket = newEngine(t, engine, transports);
            const upgrade = event(socket, "upgrade");
            await event(socket, "open");
            assert.equal(socket.transport.name, "polling");

            const [transport] = await upgrade;

            assert.equal(transport.name, "websocket");
            assert.equal(socket.transport, transport);
        });
    }
}
