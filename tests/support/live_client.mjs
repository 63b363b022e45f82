// A Socket.IO client to be told what to do, in JSON lines: settings as the argument, commands in,
// what happens out. The commands are {id, emit: name, said}, {close: true}.
import { createRequire } from "node:module";
import { createInterface } from "node:readline";

const { io } = createRequire(new URL("../../docs/examples/live/", import.meta.url))(
  "socket.io-client",
);
const tell = (what) => process.stdout.write(`${JSON.stringify(what)}\n`);
const { url, follow, ...options } = JSON.parse(process.argv[2]);
let cursor = options.auth?.after;
const auth = options.auth ?? {};
const socket = io(url, {
  ...options,
  auth: (give) => give(follow && cursor ? { ...auth, after: cursor } : auth),
});

socket.on("connect", () =>
  tell({ at: "connect", transport: socket.io.engine.transport.name }),
);
socket.io.engine?.on("upgrade", (transport) => tell({ at: "upgrade", to: transport.name }));
socket.on("connect_error", (error) =>
  tell({ at: "connect_error", message: error.message, data: error.data, active: socket.active }),
);
socket.on("disconnect", (reason) => tell({ at: "disconnect", reason, active: socket.active }));
socket.onAny((name, event) => {
  cursor = event.cursor ?? cursor;
  tell({ at: "event", name, event });
});
for await (const line of createInterface({ input: process.stdin })) {
  const { id, emit, said, close } = JSON.parse(line);
  if (close) break;
  socket.emit(emit, said, (answer) => tell({ at: "ack", id, answer }));
}
socket.close();
