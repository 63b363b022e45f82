// Runs the script of a page as a browser does, as far as this page goes: with the browser's build of
// the client, a document that has the elements it names, and a storage.
import { readFileSync } from "node:fs";
import { createRequire } from "node:module";
import vm from "node:vm";

const [page, url, token] = process.argv.slice(2);
const here = createRequire(page);
const tell = (what) => process.stdout.write(`${JSON.stringify(what)}\n`);
const stored = new Map([["waypost.url", url], ["waypost.token", token]]);
const element = (id) => ({
  append: (child) => tell({ at: id, text: child.textContent }),
  set textContent(text) {
    tell({ at: id, text });
  },
});
const window = {
  document: { getElementById: element, createElement: () => ({}) },
  localStorage: {
    getItem: (name) => stored.get(name) ?? null,
    setItem: (name, value) => {
      stored.set(name, value);
      tell({ at: "storage", name, text: value });
    },
  },
  WebSocket: here("ws"),
  XMLHttpRequest: here("xmlhttprequest-ssl").XMLHttpRequest,
  location: { protocol: "http:", hostname: "127.0.0.1", port: "" },
  addEventListener: () => {},
  removeEventListener: () => {},
  setTimeout,
  clearTimeout,
  console,
};
window.self = window.window = window;
vm.createContext(window);
vm.runInContext(readFileSync(here.resolve("socket.io-client/dist/socket.io.js"), "utf8"), window);
for (const [, script] of readFileSync(page, "utf8").matchAll(/<script>([^]*?)<\/script>/g)) {
  vm.runInContext(script, window);
}
process.stdin.on("end", () => process.exit(0)).resume();
