"use strict";

// Talks HTTP/2 with Node's own client: node http2_client.js URL. Prints one JSON object. NODE_PATH says where `ws` is, whose frames a
// WebSocket over a stream borrows; without it that part is left out.
const http2 = require("node:http2");
const { once } = require("node:events");

const session = http2.connect(process.argv[2], { rejectUnauthorized: false });
const found = { hints: [] };
session.on("error", (error) => { found.error = String(error); });

async function answer(stream) {
  const parts = [];
  let head, trailers = {};
  stream.on("response", (headers) => { head = headers; });
  stream.on("trailers", (headers) => { trailers = { ...headers }; });
  stream.on("data", (part) => parts.push(part));
  await once(stream, "end");
  return { status: head[":status"], headers: { ...head }, body: Buffer.concat(parts), trailers };
}

async function get(path, headers = {}) {
  return answer(session.request({ ":path": path, ...headers }));
}

async function upload() {
  const stream = session.request({ ":method": "POST", ":path": "/length" });
  const whole = answer(stream);
  for (let index = 0; index < 100; index += 1) {
    if (!stream.write(Buffer.alloc(30_000))) await once(stream, "drain");
  }
  stream.end();
  return (await whole).body.toString();
}

async function trailers() {
  const stream = session.request({ ":method": "POST", ":path": "/trailers", te: "trailers" }, { waitForTrailers: true });
  stream.on("wantTrailers", () => stream.sendTrailers({ "x-checksum": "abc" }));
  const whole = answer(stream);
  stream.end("a body");
  const { body, trailers: came } = await whole;
  return { body: body.toString(), own: came["x-own"], was: came["x-was-x-checksum"] };
}

async function hints() {
  const stream = session.request({ ":path": "/hints" });
  stream.on("headers", (headers) => found.hints.push([headers[":status"], headers.link]));
  return (await answer(stream)).body.toString();
}

async function reset() {
  await get("/forget");
  const stream = session.request({ ":path": "/listen" });
  stream.on("error", () => {});
  for (;;) { // until the application has it
    const seen = JSON.parse((await get("/seen")).body);
    if (seen.some((line) => line === "GET /listen")) break;
  }
  stream.close(http2.constants.NGHTTP2_CANCEL);
  await once(stream, "close");
  for (;;) {
    const events = JSON.parse((await get("/events")).body);
    if (events.includes("disconnect heard by /listen")) return true;
  }
}

function ping() {
  return new Promise((resolve, reject) => {
    session.ping(Buffer.from("8 bytes."), (error, _, payload) => (error ? reject(error) : resolve(payload.toString())));
  });
}

async function socket() {
  let ws;
  try { ws = require("ws"); } catch { return null; }
  const { Receiver, Sender } = ws;
  if (!session.remoteSettings.enableConnectProtocol) return "not offered";
  const stream = session.request({ ":method": "CONNECT", ":protocol": "websocket", ":path": "/echo?name=node", "sec-websocket-version": 13 });
  const [head] = await once(stream, "response");
  const receiver = new Receiver({ isServer: false }), sender = new Sender(stream, {}), came = [];
  stream.on("data", (part) => receiver.write(part));
  const text = { fin: true, mask: true, binary: false, compress: false };
  const large = "large ".repeat(50_000);
  const closed = once(receiver, "conclude"), ended = once(stream, "end");
  receiver.on("message", (data) => {
    came.push(data.toString());
    if (came.length === 3) sender.close(4_001, "done", true);
  });
  for (const message of ["hello", "żółw 🐢", large]) sender.send(message, text);
  const [code, reason] = await closed;
  stream.end();
  await ended;
  return { status: head[":status"], right: came[0] === "hello" && came[1] === "żółw 🐢" && came[2] === large, code, reason: reason.toString() };
}

(async () => {
  await once(session, "remoteSettings");
  const first = await get("/echo?a=b", { "x-own": ["1", "2"] });
  found.get = JSON.parse(first.body);
  found.many = (await Promise.all(Array.from({ length: 200 }, () => get("/blob?size=20000")))).filter(({ body }) => body.length === 20_000).length;
  found.upload = await upload();
  found.trailers = await trailers();
  found.hinted = await hints();
  found.reset = await reset();
  found.pong = await ping();
  found.socket = await socket();
  session.close();
  await once(session, "close");
  found.closed = true;
})().catch((error) => { found.error = String(error.stack); session.destroy(); }).finally(() => console.log(JSON.stringify(found)));
