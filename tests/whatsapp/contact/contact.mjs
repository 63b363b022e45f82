// A WhatsApp contact as a process: commands come as JSON lines on stdin, answers and events leave
// as JSON lines on stdout. Baileys does the talking, so whoever talks with this contact talks with
// an implementation that shares no code with Waypost.
//
//   node contact.mjs '{"url": …, "rootKey": …, "folder": …, "mediaHost": …, "code": …}'
//
// url        the server's websocket, wss://…
// rootKey    the public key, in hex, that the server's Noise certificates are signed with
//            (Baileys 7.0.0-rc14 goes through the motions of verifying, and accepts any)
// folder     where credentials and downloaded media are kept; the same folder resumes the device
// mediaHost  host and port of the server's media
// code       optional: the phone number to ask a pairing code for, instead of showing QR codes
//
// A command is {"ask": 1, "do": "text", …}; its answer {"answer": 1, "result": …} or
// {"answer": 1, "error": …}. An event is {"event": "message", …}. What there is to say is in
// saying.mjs, what there is to hear in hearing.mjs. The process ends with its stdin.
import readline from 'node:readline'
import { Connection } from './connection.mjs'
import { commands } from './saying.mjs'

const tell = (line) => process.stdout.write(JSON.stringify(line) + '\n')
const connection = new Connection(JSON.parse(process.argv[2]), tell)

async function obey({ ask, do: name, ...given }) {
  try {
    const command = commands[name]
    if (!command) throw new Error(`no such command: ${name}`)
    tell({ answer: ask, result: (await command(connection, given)) ?? null })
  } catch (error) {
    tell({ answer: ask, error: String(error?.message ?? error) })
  }
}

process.on('unhandledRejection', (reason) => {
  tell({ event: 'broken', reason: String(reason?.stack ?? reason) })
})
// Ctrl+C at a terminal reaches every process of it; whoever started this one ends it in order.
process.on('SIGINT', () => undefined)
readline
  .createInterface({ input: process.stdin })
  .on('line', (line) => void obey(JSON.parse(line)))
  .on('close', () => void connection.end().finally(() => process.exit(0)))

await connection.open()
