"use strict";

// What changes while one looks: a room, and the list of rooms. Without this file the pages work as forms.

// Every tab would come back at the same moment when the server restarts: the wait is random, and doubles from failure to failure.
const FIRST_WAIT = 500, LONGEST_WAIT = 30_000, STABLE = 10_000;  // milliseconds
const REFUSED = [1003, 1008];  // what we said is not wanted: coming back would not help

// A socket that comes back. `address()` is asked each time, `heard` gets every event, `show` the state. Gives a function that sends, if it can.
function connect(address, heard, show = () => {}) {
  let socket, failures = 0;

  const open = () => {
    let since = Infinity;
    socket = new WebSocket(new URL(address(), location.href.replace(/^http/, "ws")));
    socket.onopen = () => { since = performance.now(); show("connected"); };
    socket.onmessage = (message) => { heard(JSON.parse(message.data)); };
    socket.onclose = ({ code, reason }) => {
      if (REFUSED.includes(code)) return show(reason || "refused", "broken");
      if (performance.now() - since > STABLE) failures = 0;
      const wait = Math.min(LONGEST_WAIT, FIRST_WAIT * 2 ** failures++) * (0.5 + Math.random() / 2);
      show("reconnecting", "broken");
      setTimeout(open, wait);
    };
  };

  show("connecting");
  open();
  return (event) => {
    if (socket.readyState !== WebSocket.OPEN) return false;
    socket.send(JSON.stringify(event));
    return true;
  };
}

// Text with its addresses as links: strings and elements, to be appended.
function linked(text) {
  return text.split(/(https?:\/\/[^\s<>"]*[^\s<>".,:;!?)\]'])/).map((part, index) => {
    if (index % 2 === 0) return part;
    return Object.assign(document.createElement("a"), { href: part, rel: "nofollow", textContent: part });
  });
}

function avatarOf(name) {
  const avatar = Object.assign(document.createElement("span"), { className: "avatar", title: name });
  avatar.dataset.name = name;
  paint(avatar);
  return avatar;
}

function openRoom(log) {
  const [template, faces, people, state, refused] = ["message", "faces", "people", "state", "refused"].map((id) => document.getElementById(id));
  const numbers = [...log.querySelectorAll(".message")].map((item) => Number(item.id.replace("message-", "")));
  const members = new Map();  // number of a socket -> name of its user, empty for a visitor
  let last = Math.max(0, ...numbers);

  function showMembers() {
    const names = [...new Set(members.values())].filter(Boolean);
    const visitors = [...members.values()].filter((name) => !name).length;
    const parts = visitors ? [...names, `${visitors} visitor${visitors === 1 ? "" : "s"}`] : names;
    faces.replaceChildren(...names.slice(0, 5).map(avatarOf));
    people.textContent = new Intl.ListFormat("en").format(parts);
  }

  const on = {
    message({ id, author, text, sent_at }) {
      last = Math.max(last, id);
      if (document.getElementById(`message-${id}`)) return;
      const item = template.content.firstElementChild.cloneNode(true);
      const [avatar, name, time, body] = [".avatar", "strong", "time", ".text"].map((part) => item.querySelector(part));
      item.id = `message-${id}`;
      item.classList.toggle("mine", author === log.dataset.user);
      avatar.dataset.name = name.textContent = author;
      time.dateTime = sent_at;
      body.append(...linked(text));
      paint(avatar);
      localize(time);
      const atEnd = log.scrollHeight - log.scrollTop - log.clientHeight < 80;
      log.querySelector(".silent")?.remove();
      log.append(item);
      if (atEnd || author === log.dataset.user) log.scrollTo(0, log.scrollHeight);
    },
    here({ members: list }) {
      members.clear();
      for (const [id, name] of list) members.set(id, name);
      showMembers();
    },
    join({ id, name }) { members.set(id, name); showMembers(); },
    leave({ id }) { members.delete(id); showMembers(); },
    error({ text }) { refused.textContent = text; },
  };

  const say = connect(
    () => `${log.dataset.socket}?after=${last}`,
    (event) => on[event.type]?.(event),
    (text, kind = "") => { state.hidden = false; state.textContent = text; state.className = `status ${kind}`; },
  );

  // Without a connection the form goes its own way.
  document.getElementById("compose")?.addEventListener("submit", (event) => {
    const field = event.target.elements.text;
    if (field.value.trim() && !say({ text: field.value })) return;
    event.preventDefault();
    refused.textContent = field.value = "";
  });
}

function openList(list) {
  function show({ slug, count, latest }) {
    const item = list.querySelector(`[data-slug="${slug}"]`);
    const text = `${count} message${count === 1 ? "" : "s"}`;
    if (!item || item.querySelector(".count").textContent === text) return;
    item.querySelector(".count").textContent = text;
    const time = item.querySelector("time");
    if (latest) {
      time.dateTime = latest;
      localize(time);
    }
    item.classList.remove("fresh");
    void item.offsetWidth;  // so that the animation begins again
    item.classList.add("fresh");
  }

  connect(() => list.dataset.socket, (event) => { (event.type === "rooms" ? event.rooms : [event]).forEach(show); });
}

const log = document.getElementById("messages");
if (log) openRoom(log);

const list = document.getElementById("rooms");
if (list) openList(list);
