// Follows an organization's or an instance's events, and loses none while it runs.
//
//     npm ci && node follow.mjs http://127.0.0.1:8080 "$KEY" [cursor] [types, such as message.*]
//
// Each event is printed as a line of JSON.
import { io } from "socket.io-client";

const [url, credential, given, types] = process.argv.slice(2);
// Where to go on. Keep it together with what you do about events, and you go on there after a
// restart too; in this example it lives as long as the process.
let cursor = given || undefined;

const socket = io(url, {
  transports: ["websocket"],
  // Asked anew for every connection: each goes on where the one before has ended.
  auth: (tell) =>
    tell({
      ...(credential.startsWith("api_") ? { apiKey: credential } : { token: credential }),
      ...(cursor && { after: cursor }),
      ...(types && { types: types.split(",") }),
    }),
});

socket.onAny((name, event) => {
  if (event.cursor) cursor = event.cursor;
  if (name === "cursor") console.error(`told everything up to ${cursor}`);
  else if (name === "closing") console.error(`closing: ${event.code}: ${event.message}`);
  else console.log(JSON.stringify(event));
});

socket.on("connect_error", (error) => {
  console.error(`not connected: ${error.message} ${JSON.stringify(error.data ?? {})}`);
  // Refused: the same again would be refused again. Anything else the client repeats by itself.
  if (!socket.active) process.exitCode = 1;
});

socket.on("disconnect", (reason) => {
  console.error(`disconnected: ${reason}`);
  if (!socket.active) process.exitCode = 1;
});

process.on("SIGTERM", () => socket.close());
