"use strict";

// A letter and a colour for every name.
function paint(avatar) {
  const name = avatar.dataset.name;
  const hue = [...name].reduce((sum, letter) => (sum * 31 + letter.codePointAt(0)) % 360, 7);
  avatar.textContent = name[0].toUpperCase();
  avatar.style.setProperty("--hue", hue);
}

// Times as the reader's clock shows them.
function localize(time) {
  const options = { day: "numeric", month: "short", hour: "2-digit", minute: "2-digit" };
  time.textContent = new Date(time.dateTime).toLocaleString(undefined, options);
}

for (const avatar of document.querySelectorAll(".avatar")) paint(avatar);
for (const time of document.querySelectorAll("time[datetime]")) localize(time);

// A room opens at its end; Enter sends, Shift+Enter makes a line.
const messages = document.getElementById("messages");
messages?.scrollTo(0, messages.scrollHeight);

const compose = document.getElementById("compose");
compose?.addEventListener("keydown", (event) => {
  if (event.key !== "Enter" || event.shiftKey || event.isComposing) return;
  event.preventDefault();
  compose.requestSubmit();
});

// Server-sent events; the browser comes back by itself when the connection breaks.
const clock = document.getElementById("clock");
if (clock) {
  const tick = document.getElementById("tick");
  const status = document.getElementById("status");
  const source = new EventSource(clock.dataset.stream);
  source.onopen = () => { status.textContent = "connected"; };
  source.onerror = () => { status.textContent = "reconnecting"; };
  source.onmessage = (event) => { tick.textContent = event.data.split(" ")[0]; };
}

// An upload shows how far it is.
const upload = document.getElementById("upload");
upload?.addEventListener("submit", (event) => {
  event.preventDefault();
  const progress = document.getElementById("progress");
  const request = new XMLHttpRequest();
  progress.hidden = false;
  request.upload.onprogress = (sent) => { progress.value = sent.loaded / sent.total; };
  request.onload = () => { location.assign(request.responseURL); };
  request.onerror = () => { progress.hidden = true; };
  request.open("POST", upload.action);
  request.send(new FormData(upload));
});
