// The contact's device: pairing, connecting, and coming back when the server says so.
import { mkdir } from 'node:fs/promises'
import { join } from 'node:path'
import P from 'pino'
import makeWASocket, {
  DisconnectReason,
  generateMessageIDV2,
  jidDecode,
  jidNormalizedUser,
  useMultiFileAuthState,
} from 'baileys'
import { WA_CERT_DETAILS } from 'baileys/lib/Defaults/index.js'
import { Hearing } from './hearing.mjs'

// After these there is no coming back with the same credentials, or none is wanted: logged out,
// banned, forbidden, outdated, replaced.
const FINAL = [401, 402, 403, 405, 406, DisconnectReason.connectionReplaced]
// For the server to acknowledge a message.
const DEADLINE = 20_000
const PAUSE = 250

export class Connection {
  constructor({ url, rootKey, folder, mediaHost, code }, tell) {
    Object.assign(this, { url, folder, mediaHost, code, tell })
    // Everything said and heard, by id: to quote it, vote on it, or send it again when asked to.
    this.known = new Map()
    this.wanted = true
    this.sock = undefined
    // Writes of credentials and keys that are under way.
    this.writes = new Set()
    WA_CERT_DETAILS.PUBLIC_KEY = Buffer.from(rootKey, 'hex')
  }

  async open() {
    this.wanted = true
    await mkdir(join(this.folder, 'media'), { recursive: true })
    const { state, saveCreds } = await useMultiFileAuthState(join(this.folder, 'device'))
    const keys = { ...state.keys, set: (data) => this.#written(state.keys.set(data)) }
    const sock = makeWASocket({
      auth: { creds: state.creds, keys },
      waWebSocketUrl: this.url,
      customUploadHosts: [{ hostname: this.mediaHost }],
      logger: P({ level: process.env.CONTACT_LOG ?? 'silent' }, P.destination(2)),
      emitOwnEvents: false,
      // No phone is there to send a history, and Baileys would hold everything back for it.
      shouldSyncHistoryMessage: () => false,
      getMessage: async ({ id }) => this.known.get(id)?.message ?? undefined,
    })
    this.sock = sock
    const hearing = new Hearing(this, sock)
    sock.ev.on('creds.update', () => void this.#written(saveCreds()))
    sock.ev.on('connection.update', (update) => void this.#changed(sock, update))
    hearing.listen()
  }

  // Go away without logging out; what comes meanwhile waits at the server.
  close() {
    this.wanted = false
    return this.sock.end(undefined)
  }

  // Go away for good, with the device as it was last left on disk: a file that is being written
  // while the process ends would be an empty one.
  async end() {
    await this.close()
    while (this.writes.size) await Promise.allSettled(this.writes)
  }

  #written(write) {
    this.writes.add(write)
    return write.finally(() => this.writes.delete(write))
  }

  async #changed(sock, { qr, connection, isNewLogin, lastDisconnect }) {
    if (sock !== this.sock) return
    if (qr) await this.#pair(sock, qr)
    if (isNewLogin) this.tell({ event: 'paired', ...this.#me() })
    if (!connection) return
    const error = lastDisconnect?.error
    const code = error?.output?.statusCode
    this.tell({
      event: 'connection',
      state: connection,
      ...(connection === 'open' && this.#me()),
      ...(connection === 'close' && { code, reason: error?.message }),
    })
    if (connection !== 'close' || !this.wanted || FINAL.includes(code)) return
    const again = () => this.wanted && this.sock === sock && this.open()
    setTimeout(again, code === DisconnectReason.restartRequired ? 0 : PAUSE)
  }

  async #pair(sock, qr) {
    if (!this.code) return this.tell({ event: 'qr', code: qr })
    if (this.asked === sock) return undefined
    this.asked = sock
    const code = await sock.requestPairingCode(this.code)
    return this.tell({ event: 'code', code })
  }

  #me() {
    const { id, lid } = this.sock.authState.creds.me ?? {}
    return {
      phone: id && jidDecode(id).user,
      lid: lid && jidNormalizedUser(lid),
      device: id && (jidDecode(id).device ?? 0),
    }
  }

  // Whatever 'to' names: a phone number with or without '+', or an address.
  address(to) {
    return to.includes('@') ? to : `${to.replace(/^\+/, '')}@s.whatsapp.net`
  }

  message(id) {
    const found = this.known.get(id)
    if (!found) throw new Error(`never heard of a message ${id}`)
    return found
  }

  // Send, and return once the server has taken it; its id is also how to refer to it later.
  async send(to, content, options = {}) {
    const id = generateMessageIDV2(this.sock.user.id)
    return this.#acknowledged(id, async () => {
      const sent = await this.sock.sendMessage(this.address(to), content, {
        messageId: id,
        ...options,
      })
      this.known.set(id, sent)
    })
  }

  // The same for what Baileys has no words for.
  async relay(to, message, options = {}) {
    const id = generateMessageIDV2(this.sock.user.id)
    return this.#acknowledged(id, () =>
      this.sock.relayMessage(this.address(to), message, { messageId: id, ...options }),
    )
  }

  async #acknowledged(id, act) {
    const taken = this.sock.waitForMessage(id, DEADLINE)
    // Looked at below; until then a failure must not count as nobody's.
    taken.catch(() => undefined)
    await act()
    const ack = await taken
    if (!ack) throw new Error(`the server has not acknowledged ${id}`)
    if (ack.attrs.error) throw new Error(`the server refused ${id} with ${ack.attrs.error}`)
    return { id }
  }
}
