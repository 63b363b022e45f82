// What the contact hears, decoded and told as events, in the order in which it came.
import { createHash } from 'node:crypto'
import { createWriteStream } from 'node:fs'
import { join } from 'node:path'
import { pipeline } from 'node:stream/promises'
import {
  downloadContentFromMessage,
  isJidGroup,
  isLidUser,
  isPnUser,
  jidDecode,
  jidNormalizedUser,
  normalizeMessageContent,
  proto,
} from 'baileys'
import { votedFor } from './votes.mjs'

const { REVOKE, MESSAGE_EDIT } = proto.Message.ProtocolMessage.Type
const { StubType } = proto.WebMessageInfo
const RECEIPTS = { undefined: 'delivered', inactive: 'delivered' }
const MEDIA = {
  imageMessage: 'image',
  videoMessage: 'video',
  audioMessage: 'audio',
  documentMessage: 'document',
  stickerMessage: 'sticker',
}
// Without these a message has nothing to say to a person.
const SILENT = ['senderKeyDistributionMessage', 'messageContextInfo']

export class Hearing {
  constructor(connection, sock) {
    this.connection = connection
    this.sock = sock
    this.tell = connection.tell
    this.queue = Promise.resolve()
  }

  listen() {
    const { ev, ws } = this.sock
    ev.on('messages.upsert', ({ messages, type }) => {
      for (const message of messages) this.#next(() => this.#heard(message, type === 'append'))
    })
    // As they come: Baileys' own event folds receipts that come together into the last one.
    ws.on('CB:receipt', (node) => this.#next(() => this.#receipt(node)))
    ev.on('presence.update', ({ id, presences }) => {
      for (const [who, { lastKnownPresence }] of Object.entries(presences)) {
        this.#next(async () => this.#presence(id, who, lastKnownPresence))
      }
    })
    ev.on('groups.upsert', (groups) => {
      for (const { id, subject, participants } of groups) {
        const members = participants.map((one) => one.id)
        this.#next(() => this.tell({ event: 'group', change: 'joined', id, subject, members }))
      }
    })
    ev.on('groups.update', (groups) => {
      for (const { id, subject } of groups) {
        if (subject) this.#next(() => this.tell({ event: 'group', change: 'renamed', id, subject }))
      }
    })
    ev.on('group-participants.update', ({ id, action, participants, author }) => {
      const members = participants.map((one) => one.id)
      this.#next(() => this.tell({ event: 'group', change: action, id, members, author }))
    })
  }

  // One after the other, although downloads and decryption take their time.
  #next(act) {
    this.queue = this.queue.then(act).catch((error) => {
      this.tell({ event: 'broken', reason: String(error?.stack ?? error) })
    })
  }

  async #heard(message, offline) {
    const { key } = message
    if (message.messageStubType === StubType.CIPHERTEXT) {
      return this.tell({
        event: 'undecryptable',
        id: key.id,
        chat: key.remoteJid,
        reason: message.messageStubParameters?.[0],
      })
    }
    const content = normalizeMessageContent(message.message)
    if (!content) return undefined
    const common = {
      id: key.id,
      ...(await this.#from(key)),
      name: message.pushName ?? undefined,
      at: Number(message.messageTimestamp),
      offline,
    }
    return this.tell({ ...common, ...(await this.#said(message, content, key)) })
  }

  async #said(message, content, key) {
    const { reactionMessage: reaction, protocolMessage: change, pollUpdateMessage: update } = content
    if (reaction) return { event: 'reaction', target: reaction.key.id, emoji: reaction.text ?? '' }
    if (change?.type === REVOKE) return { event: 'revoked', target: change.key.id }
    if (change?.type === MESSAGE_EDIT) {
      const text = wordsOf(normalizeMessageContent(change.editedMessage))
      return { event: 'edited', target: change.key.id, text }
    }
    if (update) {
      const poll = update.pollCreationMessageKey.id
      return { event: 'vote', poll, options: votedFor(this.connection, update, key) }
    }
    const type = Object.keys(content).find((name) => content[name] != null && !SILENT.includes(name))
    if (!type || change) return { event: 'other', type }
    this.connection.known.set(key.id, message)
    return { event: 'message', ...(await this.#told(content, type, key.id)) }
  }

  async #told(content, type, id) {
    const part = content[type]
    const context = part?.contextInfo
    const common = {
      quoted: context?.stanzaId || undefined,
      quotedBy: context?.participant || undefined,
      mentions: context?.mentionedJid?.length ? context.mentionedJid : undefined,
    }
    if (MEDIA[type]) {
      const kind = type === 'audioMessage' && part.ptt ? 'voice' : MEDIA[type]
      const file = await this.#fetched(part, MEDIA[type], id)
      return { kind, caption: part.caption || undefined, media: file, ...common }
    }
    if (type === 'locationMessage') return { kind: 'location', ...placeOf(part), ...common }
    if (type === 'contactMessage') return { kind: 'contact', ...cardOf(part), ...common }
    if (type === 'contactsArrayMessage') {
      return { kind: 'contact', ...cardOf(part.contacts[0]), ...common }
    }
    if (type.startsWith('pollCreationMessage')) {
      return {
        kind: 'poll',
        question: part.name,
        options: part.options.map((option) => option.optionName),
        selectable: part.selectableOptionsCount,
        ...common,
      }
    }
    const text = wordsOf(content)
    if (text !== undefined) {
      const preview = part?.title && { title: part.title, description: part.description }
      return { kind: 'text', text, preview: preview || undefined, ...common }
    }
    return { kind: 'other', type, ...common }
  }

  // A file that came with a message, decrypted into the contact's folder.
  async #fetched(part, kind, id) {
    const about = {
      mimeType: part.mimetype,
      size: Number(part.fileLength),
      filename: part.fileName || undefined,
      seconds: part.seconds || undefined,
    }
    const path = join(this.connection.folder, 'media', id.replace(/\W/g, '_'))
    const hash = createHash('sha256')
    try {
      const stream = await downloadContentFromMessage(part, kind, {
        host: this.connection.mediaHost,
      })
      stream.on('data', (chunk) => hash.update(chunk))
      await pipeline(stream, createWriteStream(path))
    } catch (error) {
      return { ...about, error: String(error?.message ?? error) }
    }
    const sha256 = hash.digest('hex')
    const promised = Buffer.from(part.fileSha256).toString('hex')
    if (sha256 !== promised) return { ...about, error: `its hash is ${sha256}, not ${promised}` }
    return { ...about, path, sha256 }
  }

  async #receipt({ attrs, content }) {
    const list = Array.isArray(content) ? content.find((node) => node.tag === 'list') : undefined
    const ids = [attrs.id, ...(list?.content ?? []).map((item) => item.attrs.id)]
    const sender = attrs.participant ?? attrs.from
    this.tell({
      event: 'receipt',
      ids,
      type: RECEIPTS[attrs.type] ?? attrs.type,
      chat: jidNormalizedUser(attrs.from),
      ...(await this.#named([sender])),
      offline: attrs.offline !== undefined,
    })
  }

  async #presence(id, who, state) {
    const shown = { composing: 'typing', available: 'available' }[state] ?? state
    this.tell({ event: 'presence', chat: id, ...(await this.#named([who])), state: shown })
  }

  async #from(key) {
    const group = isJidGroup(key.remoteJid)
    const names = group
      ? [key.participant, key.participantAlt]
      : [key.remoteJid, key.remoteJidAlt]
    return {
      chat: key.remoteJid,
      group,
      fromMe: Boolean(key.fromMe),
      ...(await this.#named(names)),
    }
  }

  // By phone and by LID, as far as either is known.
  async #named(names) {
    const given = names.filter(Boolean)
    const lid = given.find((name) => isLidUser(name))
    const mapping = this.sock.signalRepository.lidMapping
    const pn = given.find((name) => isPnUser(name)) ?? (lid && (await mapping.getPNForLID(lid)))
    return {
      phone: pn ? jidDecode(pn).user : undefined,
      lid: lid ? jidNormalizedUser(lid) : undefined,
    }
  }
}

const wordsOf = (content) => content?.conversation || content?.extendedTextMessage?.text || undefined

const placeOf = (part) => ({
  latitude: part.degreesLatitude,
  longitude: part.degreesLongitude,
  place: part.name || undefined,
  address: part.address || undefined,
})

const cardOf = (part) => ({
  person: part.displayName,
  phones: [...part.vcard.matchAll(/waid=(\d+)/g)].map((found) => found[1]),
})
