// A server on the stock Socket.IO library, for benchmarks to compare with. It does what every
// server of this protocol must do for a call, and nothing more: it makes no tips but one.
//
// Environment: API_KEY, PORT (0, the default, takes a free one), WARMUP_MS.

import { randomBytes } from "node:crypto";
import { createServer } from "node:http";

import { Server } from "socket.io";

const apiKey = process.env.API_KEY;
const port = Number(process.env.PORT ?? 0);
const warmupMs = Number(process.env.WARMUP_MS ?? 180_000);

const MAX_TEXT = 4000;
const MAX_ID = 200;
const MAX_LINES = 50;
const FORGET_AFTER_MS = 300_000;

if (!apiKey) {
    throw new Error("API_KEY must be set");
}

const conversations = new Map();

class Refusal extends Error {
    constructor(code, message) {
        super(message);
        this.code = code;
    }
}

// Validation

function demand(holds, message) {
    if (!holds) {
        throw new Refusal("INVALID_PAYLOAD", message);
    }
}

const isObject = (value) =>
    value !== null && typeof value === "object" && !Array.isArray(value);
const isId = (value) => typeof value === "string" && value.length > 0 && value.length <= MAX_ID;
const isOptional = (value, type) => value === undefined || typeof value === type;

function checkStart(payload) {
    demand(isObject(payload), "the payload must be an object");
    demand(isId(payload.agentId), "agentId must be a string");
    demand(payload.metadata === undefined || isObject(payload.metadata), "metadata is no object");
    return payload;
}

function checkTranscript(payload) {
    demand(isObject(payload), "the payload must be an object");
    const { conversationId, speaker, text, isFinal, timestamp } = payload;
    demand(isId(conversationId), "conversationId must be a string");
    demand(speaker === "agent" || speaker === "caller", "speaker must be agent or caller");
    demand(typeof text === "string", "text must be a string");
    demand(isOptional(isFinal, "boolean"), "isFinal must be a boolean");
    demand(timestamp === null || isOptional(timestamp, "number"), "timestamp must be a number");
    return payload;
}

function checkEnd(payload) {
    demand(isObject(payload), "the payload must be an object");
    demand(isId(payload.conversationId), "conversationId must be a string");
    return payload;
}

// Conversations

function send(socket, type, payload) {
    socket.emit(type, { type, payload });
}

function find(conversationId, socket) {
    const conversation = conversations.get(conversationId);
    if (conversation === undefined) {
        throw new Refusal("UNKNOWN_CONVERSATION", "there is no such conversation");
    }
    if (conversation.socket !== socket) {
        attach(conversation, socket);
    }
    return conversation;
}

function attach(conversation, socket) {
    conversation.socket?.data.calls.delete(conversation.agentId);
    conversation.socket = socket;
    socket.data.calls.set(conversation.agentId, conversation);
    clearTimeout(conversation.forgetting);
    clearTimeout(conversation.warmup);
    if (conversation.ended) {
        forgetLater(conversation);
    } else if (!conversation.warmedUp) {
        const remaining = conversation.startedAt + warmupMs - Date.now();
        conversation.warmup = setTimeout(giveTip, Math.max(0, remaining), conversation);
    }
}

function detach(conversation) {
    conversation.socket = null;
    clearTimeout(conversation.warmup);
    forgetLater(conversation);
}

function forgetLater(conversation) {
    clearTimeout(conversation.forgetting);
    conversation.forgetting = setTimeout(
        () => conversations.delete(conversation.id),
        FORGET_AFTER_MS,
    ).unref();
}

function giveTip(conversation) {
    conversation.warmedUp = true;
    conversation.tips += 1;
    send(conversation.socket, "AI_TIP", {
        recommendationId: `${conversation.id}.${conversation.tips}`,
        conversationId: conversation.id,
        stage: "GREETING",
        heading: "Introduce yourself",
        context: "The call has just begun.",
        options: [{ label: "Introduce yourself", script: "Hi, can I take a minute?", id: "hi" }],
        timestamp: Date.now(),
        source: "playbook",
        trigger: "warmup",
        basedOn: conversation.seq,
    });
}

// Events. What a handler returns goes into the acknowledgement.

function startConversation(socket, payload) {
    const { agentId } = checkStart(payload);
    let conversation = socket.data.calls.get(agentId);
    const resumed = conversation !== undefined;
    if (!resumed) {
        conversation = {
            id: randomBytes(16).toString("base64url"),
            agentId,
            startedAt: Date.now(),
            lines: [],
            seq: 0,
            tips: 0,
            warmedUp: false,
            warmup: undefined,
            forgetting: undefined,
            ended: undefined,
            socket: null,
        };
        conversations.set(conversation.id, conversation);
        attach(conversation, socket);
    }
    send(socket, "CONVERSATION_STARTED", {
        conversationId: conversation.id,
        timestamp: Date.now(),
        resumed,
        mode: "hybrid",
        seq: conversation.seq,
    });
    return { conversationId: conversation.id };
}

function transcript(socket, payload) {
    const { conversationId, speaker, text, timestamp } = checkTranscript(payload);
    const conversation = find(conversationId, socket);
    if (conversation.ended) {
        warn(socket, conversationId, "CONVERSATION_OVER", "the conversation is over");
        return {};
    }
    if (text.length > MAX_TEXT) {
        warn(socket, conversationId, "TEXT_TRUNCATED", `the text was cut to ${MAX_TEXT} letters`);
    }
    conversation.seq += 1;
    conversation.lines.push({
        seq: conversation.seq,
        speaker,
        text: text.slice(0, MAX_TEXT),
        timestamp: timestamp ?? Date.now(),
    });
    if (conversation.lines.length > MAX_LINES) {
        conversation.lines.shift();
    }
    return { seq: conversation.seq };
}

function endConversation(socket, payload) {
    const conversation = find(checkEnd(payload).conversationId, socket);
    if (!conversation.ended) {
        clearTimeout(conversation.warmup);
        conversation.lines = [];
        conversation.ended = {
            conversationId: conversation.id,
            timestamp: Date.now(),
            summary: {
                durationMs: Date.now() - conversation.startedAt,
                transcripts: conversation.seq,
                tips: conversation.tips,
                tokens: 0,
                costUsd: 0,
            },
        };
        forgetLater(conversation);
    }
    send(socket, "CONVERSATION_ENDED", conversation.ended);
    return {};
}

function ping(socket) {
    send(socket, "PONG", { timestamp: Date.now() });
    return {};
}

function warn(socket, conversationId, code, message) {
    send(socket, "WARNING", { conversationId, code, message, timestamp: Date.now() });
}

const handlers = {
    START_CONVERSATION: startConversation,
    TRANSCRIPT: transcript,
    END_CONVERSATION: endConversation,
    PING: ping,
};

function handle(socket, handler, args) {
    const ack = typeof args.at(-1) === "function" ? args.pop() : undefined;
    try {
        const answer = handler(socket, args[0]);
        ack?.({ ok: true, ...answer });
    } catch (error) {
        if (!(error instanceof Refusal)) {
            throw error;
        }
        const { code, message } = error;
        if (ack) {
            ack({ ok: false, code, message });
        } else {
            send(socket, "ERROR", { code, message, timestamp: Date.now() });
        }
    }
}

// Serving

function health() {
    let activeConversations = 0;
    for (const conversation of conversations.values()) {
        activeConversations += conversation.ended ? 0 : 1;
    }
    return { status: "healthy", timestamp: Date.now(), activeConversations };
}

function usage() {
    // Read before the collection, which is not part of the load.
    const { user, system } = process.cpuUsage();
    globalThis.gc?.();
    return { cpuMicros: user + system, rssBytes: process.memoryUsage.rss() };
}

const pages = { "/health": health, "/usage": usage };

const http = createServer((request, response) => {
    const page = Object.hasOwn(pages, request.url) ? pages[request.url] : undefined;
    if (request.method !== "GET" || page === undefined) {
        response.writeHead(404).end();
        return;
    }
    response.writeHead(200, { "content-type": "application/json" });
    response.end(JSON.stringify(page()));
});

const server = new Server(http, {
    perMessageDeflate: false,
    pingInterval: 20_000,
    serveClient: false,
});

server.use((socket, next) => {
    next(socket.handshake.auth.apiKey === apiKey ? undefined : new Error("Authentication failed"));
});

server.on("connection", (socket) => {
    socket.data.calls = new Map();
    for (const [name, handler] of Object.entries(handlers)) {
        socket.on(name, (...args) => handle(socket, handler, args));
    }
    socket.on("disconnect", () => socket.data.calls.forEach(detach));
});

http.listen(port, "127.0.0.1", () => {
    console.log(`listening on http://127.0.0.1:${http.address().port}`);
});

process.once("SIGTERM", () => process.exit(0));
