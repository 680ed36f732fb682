// The shipped client's behaviour, played with its own library against a running server.
//
// COACH_URL, COACH_API_KEY and the server's timers COACH_WARMUP_MS, COACH_INTERVAL_MS and
// COACH_SILENCE_MS come from the environment.

import assert from "node:assert/strict";
import { randomBytes } from "node:crypto";
import { test } from "node:test";
import { setTimeout as sleep } from "node:timers/promises";

import { Client, connect, handshake } from "./wire.mjs";

const url = setting("COACH_URL");
const apiKey = setting("COACH_API_KEY");
const warmup = Number(setting("COACH_WARMUP_MS"));
const interval = Number(setting("COACH_INTERVAL_MS"));
const silence = Number(setting("COACH_SILENCE_MS"));

/** How much later than due a tip may come. */
const slack = 1000;
/** Two clocks of the server, each rounded to the millisecond, may disagree by so much. */
const rounding = 5;

function setting(name) {
    const value = process.env[name];
    if (!value) {
        throw new Error(`${name} must be set: it describes the server to test`);
    }
    return value;
}

/** A test with a deadline, so that nothing hangs. */
function scenario(name, play) {
    test(name, { timeout: 20_000 }, play);
}

async function newClient(t) {
    const client = await Client.connect(url, apiKey);
    t.after(() => client.close());
    return client;
}

let agents = 0;

function newAgentId() {
    agents += 1;
    return `agent-${Date.now()}-${agents}`;
}

/** A call as the shipped client leads it. */
class Call {
    lines = [];

    constructor(client, conversationId) {
        this.client = client;
        this.id = conversationId;
    }

    static async start(client, metadata = {}) {
        client.emit("START_CONVERSATION", {
            agentId: newAgentId(),
            metadata: { source: "chrome-extension", tabId: 7, ...metadata },
        });
        const started = await client.next("CONVERSATION_STARTED");
        return new Call(client, started.conversationId);
    }

    /** Go on with the call on another socket, as the client does after a reconnect. */
    on(client) {
        return new Call(client, this.id);
    }

    say(speaker, text) {
        const timestamp = Date.now();
        this.lines.push({ speaker, text, timestamp, confidence: 0.9 });
        this.client.emit("TRANSCRIPT", {
            conversationId: this.id,
            speaker,
            text,
            isFinal: true,
            timestamp,
        });
    }

    select(tip, option) {
        this.client.emit("OPTION_SELECTED", {
            recommendationId: tip.recommendationId,
            selectedOption: option,
        });
    }

    /** Ask for the next tip, with every field that the shipped client sends. */
    requestNext(tip, option) {
        this.client.emit("REQUEST_NEXT_TIP", {
            conversationId: this.id,
            selectedRecommendationId: tip.recommendationId,
            selectedOption: option,
            selectedScript: tip.options[option - 1].script,
            agentResponse: this.lines.findLast((line) => line.speaker === "agent"),
            customerReaction: this.lines.findLast((line) => line.speaker === "caller"),
            transcriptHistory: this.lines.slice(-20),
            timestamp: Date.now(),
        });
    }

    requestAlternative(tip) {
        this.client.emit("REQUEST_ALTERNATIVE_TIP", {
            conversationId: this.id,
            currentStage: tip.stage,
            currentScriptId: tip.options[0].id,
        });
    }

    end() {
        this.client.emit("END_CONVERSATION", { conversationId: this.id });
    }

    /** The next tip, which must have been triggered so. */
    async tip(trigger, within = slack) {
        const tip = await this.client.next("AI_TIP", { within });
        assert.equal(tip.trigger, trigger);
        assert.equal(tip.conversationId, this.id);
        return tip;
    }
}

/** A tip's request before any tip was shown has nothing selected to tell of. */
function requestFirst(client, conversationId) {
    client.emit("REQUEST_NEXT_TIP", {
        conversationId,
        transcriptHistory: [],
        timestamp: Date.now(),
    });
}

// Connecting

scenario("connects over a WebSocket with the shipped client's options", async (t) => {
    const client = await newClient(t);
    assert.equal(client.socket.io.engine.transport.name, "websocket");
});

scenario("offers a heartbeat of 20 seconds, which keeps a service worker alive", async () => {
    const { pingInterval } = await handshake(url, apiKey);
    assert.equal(pingInterval, 20_000);
});

for (const [what, key] of [
    ["a wrong key", "wrong-key"],
    ["an empty key", ""],
    ["no key", undefined],
]) {
    scenario(`refuses ${what}`, async () => {
        await assert.rejects(connect(url, key), { message: "Authentication failed" });
    });
}

scenario("answers a PING without payload", async (t) => {
    const client = await newClient(t);
    client.emit("PING");
    await client.next("PONG");
});

// Calls

scenario("starts one call for each agentId", async (t) => {
    const client = await newClient(t);
    const start = async (agentId) => {
        client.emit("START_CONVERSATION", { agentId, metadata: {} });
        return (await client.next("CONVERSATION_STARTED", { within: 1000 })).conversationId;
    };
    const [one, other] = [newAgentId(), newAgentId()];

    const first = await start(one);

    assert.ok(first.length >= 22, `${first} holds less than 128 bits`);
    assert.equal(await start(one), first);
    assert.notEqual(await start(other), first);
});

scenario("coaches a whole call in hybrid mode", async (t) => {
    const client = await newClient(t);
    const before = performance.now();
    const call = await Call.start(client);
    const tips = [];
    const shown = (tip) => {
        tips.push(tip);
        return tip;
    };

    await t.test("warm-up", async () => {
        call.say("caller", "Hello, this is Carl from Carl's Garage.");
        call.say("agent", "Good morning Carl.");
        call.say("caller", "Who is this?");

        const tip = shown(await call.tip("warmup", warmup + slack));

        assert.ok(performance.now() - before >= warmup, "the tip came before the warm-up's end");
        assert.equal(tip.basedOn, call.lines.length);
    });

    await t.test("interval", async () => {
        call.say("caller", "We get most of our work by word of mouth.");

        const tip = shown(await call.tip("interval", interval + slack));

        const passed = tip.timestamp - tips.at(-2).timestamp;
        assert.ok(passed >= interval - rounding, `the next tip came after ${passed} ms`);
        assert.equal(tip.basedOn, call.lines.length);
    });

    await t.test("selection, spoken and answered", async () => {
        const chosen = tips.at(-1);
        call.select(chosen, 1);
        call.say("agent", chosen.options[0].script);
        call.say("caller", "I don't know, we are really busy at the moment.");
        const answered = performance.now();

        const tip = shown(await call.tip("reaction", silence + slack));

        assert.ok(performance.now() - answered >= silence, "the tip did not wait for silence");
        assert.equal(tip.basedOn, call.lines.length);
    });

    await t.test("request, which also settles the selection", async () => {
        const chosen = tips.at(-1);
        call.select(chosen, 1);
        call.say("agent", chosen.options[0].script);
        call.say("caller", "How much is it?");
        call.requestNext(chosen, 1);

        const tip = shown(await call.tip("requested"));

        assert.equal(tip.basedOn, call.lines.length);
        await client.quiet("AI_TIP", 2 * silence);
    });

    await t.test("alternative", async () => {
        const current = tips.at(-1);
        call.requestAlternative(current);

        const tip = shown(await call.tip("alternative"));

        assert.notEqual(tip.options[0].id, current.options[0].id);
    });

    await t.test("end, and nothing after it", async () => {
        call.say("caller", "Tomorrow at ten would be fine, thank you.");
        call.end();

        const { conversationId, summary } = await client.next("CONVERSATION_ENDED");

        assert.equal(conversationId, call.id);
        assert.equal(summary.transcripts, call.lines.length);
        assert.equal(summary.tips, tips.length);
        await client.quiet("AI_TIP", 1.5 * interval);
    });

    const ids = new Set(tips.map((tip) => tip.recommendationId));
    assert.equal(ids.size, tips.length, "a recommendationId stands for two tips");
    assert.deepEqual(
        new Set(client.received),
        new Set(["CONVERSATION_STARTED", "AI_TIP", "CONVERSATION_ENDED"]),
    );
});

scenario("hears an END_CONVERSATION sent in the same tick as the disconnect", async (t) => {
    const client = await newClient(t);
    const call = await Call.start(client);
    call.end();
    client.socket.disconnect();
    // The server reads the first END within this time, so its end is older than the second END.
    await sleep(250);
    const second = call.on(await newClient(t));
    const asked = Date.now();

    second.end();
    const ended = await second.client.next("CONVERSATION_ENDED");
    second.end();
    const again = await second.client.next("CONVERSATION_ENDED");

    assert.equal(ended.conversationId, call.id);
    assert.ok(ended.timestamp < asked, "only the second END ended the call");
    assert.deepEqual(again, ended);
});

scenario("lets a new socket take its call over", async (t) => {
    const oldClient = await newClient(t);
    const oldCall = await Call.start(oldClient);
    oldCall.say("caller", "Hello?");
    await oldClient.settled();
    const newCall = oldCall.on(await newClient(t));

    newCall.say("caller", "Are you still there?");
    requestFirst(newCall.client, newCall.id);
    const tip = await newCall.tip("requested");

    assert.equal(tip.basedOn, 2);
    await oldClient.settled();
    assert.deepEqual(oldClient.unread("AI_TIP"), []);
    assert.deepEqual(oldClient.unread("ERROR"), []);
});

scenario("fills scripts from the call's metadata", async (t) => {
    const client = await newClient(t);
    const call = await Call.start(client, { agentName: "Zoe" });
    call.say("caller", "Hello, who is this?");

    requestFirst(client, call.id);
    const tips = [await call.tip("requested")];
    for (let round = 0; round < 3; round += 1) {
        call.requestAlternative(tips.at(-1));
        tips.push(await call.tip("alternative"));
    }

    const scripts = tips.flatMap((tip) => tip.options.map((option) => option.script));
    assert.ok(
        scripts.some((script) => script.includes("Zoe")),
        `nobody introduces Zoe: ${scripts.join(" / ")}`,
    );
});

// Acknowledgements

scenario("acknowledges every event that asks for it", async (t) => {
    const client = await newClient(t);
    const accepted = async (name, ...args) => {
        const answer = await client.ask(name, ...args);
        assert.equal(answer.ok, true, `${name}: ${JSON.stringify(answer)}`);
    };

    await accepted("PING");
    await accepted("START_CONVERSATION", { agentId: newAgentId(), metadata: {} });
    const { conversationId } = await client.next("CONVERSATION_STARTED");
    await accepted("TRANSCRIPT", {
        conversationId,
        speaker: "caller",
        text: "Hello?",
        isFinal: true,
        timestamp: Date.now(),
    });
    await accepted("REQUEST_NEXT_TIP", { conversationId, timestamp: Date.now() });
    const { recommendationId, stage } = await client.next("AI_TIP");
    await accepted("OPTION_SELECTED", { recommendationId, selectedOption: 1 });
    await accepted("REQUEST_ALTERNATIVE_TIP", { conversationId, currentStage: stage });
    await accepted("END_CONVERSATION", { conversationId });
    await client.next("CONVERSATION_ENDED");
    assert.deepEqual(client.unread("ERROR"), []);
});

scenario("refuses a call that it does not know", async (t) => {
    const client = await newClient(t);
    const conversationId = randomBytes(16).toString("base64url");
    const requests = {
        TRANSCRIPT: { conversationId, speaker: "agent", text: "Hi", isFinal: true },
        REQUEST_NEXT_TIP: { conversationId },
        REQUEST_ALTERNATIVE_TIP: { conversationId, currentStage: "GREETING" },
        END_CONVERSATION: { conversationId },
    };
    for (const [name, payload] of Object.entries(requests)) {
        const { ok, code, message } = await client.ask(name, payload);
        assert.deepEqual([ok, code], [false, "UNKNOWN_CONVERSATION"], name);
        assert.ok(typeof message === "string" && message !== "", `${name} says no reason`);
    }
});

// Mistakes

scenario("answers each malformed payload by one ERROR and goes on", async (t) => {
    const client = await newClient(t);
    const malformed = [[], [null], ["text"], [["caller", "text"]]];
    for (const args of malformed) {
        client.emit("TRANSCRIPT", ...args);
        const { code } = await client.next("ERROR");
        assert.equal(code, "INVALID_PAYLOAD");
    }
    await client.settled();
    assert.deepEqual(client.unread("ERROR"), []);
});

scenario("cuts a text that is too long, with a WARNING", async (t) => {
    const client = await newClient(t);
    const call = await Call.start(client);

    call.say("caller", "x".repeat(5000));
    const { code, conversationId } = await client.next("WARNING");

    assert.equal(code, "TEXT_TRUNCATED");
    assert.equal(conversationId, call.id);
    call.end();
    const { summary } = await client.next("CONVERSATION_ENDED");
    assert.equal(summary.transcripts, 1);
    assert.deepEqual(client.unread("ERROR"), []);
});
