// The wire contract from the client's side: how the shipped client connects, what the server may
// send, and a client that checks everything that it receives.

import assert from "node:assert/strict";
import { setTimeout as sleep } from "node:timers/promises";

import { io } from "socket.io-client";

const CONNECT_WITHIN_MS = 5000;
const NEAR_NOW_MS = 60_000;

// Connecting

/** Exactly what the shipped client passes to `io`. */
export function options(apiKey) {
    return {
        auth: { apiKey },
        transports: ["websocket", "polling"],
        reconnection: true,
        reconnectionAttempts: 3,
        reconnectionDelay: 1000,
        reconnectionDelayMax: 5000,
    };
}

/** Resolve with a connected socket or reject with its connect_error. */
export function connect(url, apiKey) {
    return connected(io(url, options(apiKey)));
}

/** Resolve with the Engine.IO handshake that the server offers, leaving no connection. */
export function handshake(url, apiKey) {
    const socket = io(url, options(apiKey));
    const offered = new Promise((resolve) => socket.io.engine.once("handshake", resolve));
    return Promise.all([offered, connected(socket)])
        .then(([settings]) => settings)
        .finally(() => socket.disconnect());
}

function connected(socket) {
    return new Promise((resolve, reject) => {
        const fail = (error) => {
            clearTimeout(timer);
            // A stock client goes on trying, which would keep the process alive.
            socket.disconnect();
            reject(error);
        };
        const timer = setTimeout(
            () => fail(new Error(`not connected within ${CONNECT_WITHIN_MS} ms`)),
            CONNECT_WITHIN_MS,
        );
        socket.once("connect_error", fail);
        socket.once("connect", () => {
            clearTimeout(timer);
            socket.off("connect_error", fail);
            resolve(socket);
        });
    });
}

// What the server may send. A check takes a value and where it stands, and throws.

const show = (value) => JSON.stringify(value);

const that = (holds, what) => (value, where) =>
    assert.ok(holds(value), `${where} is ${show(value)}, not ${what}`);

const string = that((value) => typeof value === "string", "a string");
const words = that((value) => typeof value === "string" && value.trim() !== "", "a text");
const boolean = that((value) => typeof value === "boolean", "a boolean");
const count = that((value) => Number.isSafeInteger(value) && value >= 0, "a count");
const amount = that((value) => Number.isFinite(value) && value >= 0, "an amount");
const code = that(
    (value) => typeof value === "string" && /^[A-Z][A-Z0-9]*(_[A-Z0-9]+)*$/.test(value),
    "a code in UPPER_SNAKE",
);
const moment = that(
    (value) => Number.isSafeInteger(value) && Math.abs(value - Date.now()) < NEAR_NOW_MS,
    "the present in Unix milliseconds",
);
const oneOf = (...values) => that((value) => values.includes(value), `one of ${values}`);

function script(value, where) {
    words(value, where);
    assert.ok(!value.includes("["), `${where} has a placeholder left: ${show(value)}`);
}

function list(check, least, most) {
    return (values, where) => {
        assert.ok(Array.isArray(values), `${where} is no array: ${show(values)}`);
        assert.ok(
            values.length >= least && values.length <= most,
            `${where} has ${values.length} items, not ${least} to ${most}`,
        );
        values.forEach((value, index) => check(value, `${where}[${index}]`));
    };
}

function object(required, optional = {}) {
    const fields = { ...required, ...optional };
    return (value, where) => {
        const isObject = value !== null && typeof value === "object" && !Array.isArray(value);
        assert.ok(isObject, `${where} is no object: ${show(value)}`);
        for (const name of Object.keys(required)) {
            assert.ok(Object.hasOwn(value, name), `${where}.${name} is missing`);
        }
        for (const [name, item] of Object.entries(value)) {
            assert.ok(Object.hasOwn(fields, name), `${where}.${name} is not in the contract`);
            fields[name](item, `${where}.${name}`);
        }
    };
}

const notice = object({ message: words, code, timestamp: moment }, { conversationId: words });

const payloads = {
    CONVERSATION_STARTED: object({
        conversationId: words,
        timestamp: moment,
        resumed: boolean,
        mode: oneOf("hybrid", "auto", "event-driven"),
        seq: count,
    }),
    AI_TIP: object({
        recommendationId: words,
        conversationId: words,
        stage: oneOf(
            "GREETING",
            "DISCOVERY",
            "VALUE_PROP",
            "OBJECTION_HANDLING",
            "NEXT_STEPS",
            "CLOSING",
            "CONVERSION",
        ),
        heading: string,
        context: string,
        options: list(object({ label: words, script, id: words }), 1, 3),
        timestamp: moment,
        source: oneOf("llm", "playbook"),
        trigger: oneOf("warmup", "interval", "reaction", "requested", "alternative"),
        basedOn: count,
    }),
    AI_TIP_DELTA: object({
        recommendationId: words,
        conversationId: words,
        seq: count,
        delta: string,
    }),
    AI_TIP_CANCELLED: object({ recommendationId: words }),
    CONVERSATION_ENDED: object({
        conversationId: words,
        timestamp: moment,
        summary: object({
            durationMs: amount,
            transcripts: count,
            tips: count,
            tokens: count,
            costUsd: amount,
        }),
    }),
    ERROR: notice,
    WARNING: notice,
    PONG: object({ timestamp: moment }),
};

/** Throw unless the event with these arguments is one that the contract allows. */
export function check(name, args) {
    assert.ok(Object.hasOwn(payloads, name), `${name} is no event of the contract`);
    assert.equal(args.length, 1, `${name} has ${args.length} arguments`);
    object({ type: oneOf(name), payload: payloads[name] })(args[0], name);
}

// Receiving

/** A socket with every event that it received, each checked as it came. */
export class Client {
    #unread = [];
    #faults = [];
    #waiting = [];

    /** Names of all events received so far, in order. */
    received = [];

    /** Wrap a socket; one that is not connected yet misses nothing. */
    constructor(socket) {
        this.socket = socket;
        socket.onAny((name, ...args) => this.#record(name, args));
        socket.on("disconnect", (reason) => {
            if (reason !== "io client disconnect") {
                this.#fault(new Error(`the connection was lost: ${reason}`));
            }
        });
    }

    static async connect(url, apiKey) {
        const client = new Client(io(url, options(apiKey)));
        await connected(client.socket);
        return client;
    }

    emit(name, ...args) {
        this.socket.emit(name, ...args);
    }

    /** Emit, and resolve with the server's acknowledgement. */
    ask(name, ...args) {
        return this.socket.timeout(2000).emitWithAck(name, ...args);
    }

    /** Take the oldest unread event of this name, waiting for it if there is none. */
    async next(name, { within = 1000 } = {}) {
        let late = false;
        const timer = setTimeout(() => {
            late = true;
            this.#wake();
        }, within);
        try {
            for (;;) {
                this.#throwFault();
                const index = this.#unread.findIndex((event) => event.name === name);
                if (index >= 0) {
                    return this.#unread.splice(index, 1)[0].payload;
                }
                assert.ok(!late, `no ${name} within ${within} ms; unread: ${show(this.#unread)}`);
                await new Promise((resolve) => this.#waiting.push(resolve));
            }
        } finally {
            clearTimeout(timer);
        }
    }

    /** Payloads of the events of this name that nobody took yet. */
    unread(name) {
        return this.#unread.filter((event) => event.name === name).map((event) => event.payload);
    }

    /** Wait so long, and fail if an event of this name is unread then. */
    async quiet(name, ms) {
        await sleep(ms);
        this.#throwFault();
        assert.deepEqual(this.unread(name), []);
    }

    /** Wait until the server has answered what was sent before, by a PING. */
    async settled() {
        this.emit("PING");
        await this.next("PONG");
    }

    /** Disconnect, and fail if anything received was against the contract. */
    close() {
        this.socket.disconnect();
        this.#throwFault();
    }

    #record(name, args) {
        this.received.push(name);
        try {
            check(name, args);
        } catch (error) {
            this.#fault(error);
            return;
        }
        this.#unread.push({ name, payload: args[0].payload });
        this.#wake();
    }

    #fault(error) {
        this.#faults.push(error);
        this.#wake();
    }

    #throwFault() {
        if (this.#faults.length > 0) {
            throw this.#faults[0];
        }
    }

    #wake() {
        this.#waiting.splice(0).forEach((resume) => resume());
    }
}
