"use strict";

// Talks to the echo application with npm's `ws`: node ws_client.js URL. Prints one JSON object. NODE_PATH says where `ws` is.
const { randomBytes } = require("node:crypto");
const WebSocket = require("ws");

const socket = new WebSocket(process.argv[2], { perMessageDeflate: { threshold: 0 } });
const large = randomBytes(300_000);
const messages = ["hello", "", "żółw 🐢", "a line of text, again and again. ".repeat(200), large];
const found = { echoed: 0, pong: false };

socket.on("open", () => {
  found.extensions = socket.extensions;
  socket.ping("are you there");
  for (const message of messages) socket.send(message);
  socket.send("in ", { fin: false });
  socket.send("pieces", { fin: true });
});
socket.on("pong", (data) => { found.pong = data.toString() === "are you there"; });
socket.on("message", (data, binary) => {
  const expected = found.echoed < messages.length ? messages[found.echoed] : "in pieces";
  if (binary ? data.equals(expected) : data.toString() === expected) found.echoed += 1;
  if (found.echoed === messages.length + 1) socket.close(4001, "done");
});
socket.on("close", (code, reason) => {
  found.code = code;
  found.reason = reason.toString();
  console.log(JSON.stringify(found));
});
