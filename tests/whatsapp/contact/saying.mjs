// What the contact can be told to do: one entry for each command, named as it is called.
import { basename } from 'node:path'
import { pollVote } from './votes.mjs'

const PRESENCES = { typing: 'composing', recording: 'recording', paused: 'paused' }

const options = (connection, { reply }) =>
  reply ? { quoted: connection.message(reply) } : undefined

const jids = (connection, list) => (list ?? []).map((one) => connection.address(one))

// A file under its kind's name. A preview is given, so that none is made.
const media = (kind, extra = () => ({})) => (connection, given) =>
  connection.send(
    given.to,
    {
      [kind]: { url: given.path },
      jpegThumbnail: null,
      mimetype: given.mimeType,
      caption: given.caption,
      mentions: jids(connection, given.mentions),
      ...extra(given),
    },
    options(connection, given),
  )

export const commands = {
  // to, text, reply?, mentions?
  text: (connection, given) =>
    connection.send(
      given.to,
      { text: given.text, mentions: jids(connection, given.mentions), linkPreview: null },
      options(connection, given),
    ),

  // to, path, mimeType?, caption?, reply?; a recording has seconds, a document a filename
  image: media('image'),
  video: media('video', ({ seconds }) => ({ seconds: seconds ?? 1 })),
  audio: media('audio', ({ seconds }) => ({ ptt: false, seconds: seconds ?? 1 })),
  voice: media('audio', ({ seconds }) => ({
    ptt: true,
    seconds: seconds ?? 1,
    waveform: new Uint8Array(64),
  })),
  document: media('document', ({ path, filename }) => ({ fileName: filename ?? basename(path) })),
  sticker: media('sticker'),

  // to, latitude, longitude, name?, address?
  location: (connection, given) =>
    connection.send(given.to, {
      location: {
        degreesLatitude: given.latitude,
        degreesLongitude: given.longitude,
        name: given.name,
        address: given.address,
      },
    }),

  // to, name, phones
  contact: (connection, { to, name, phones }) => {
    const numbers = phones.map((phone) => {
      const digits = phone.replace(/\D/g, '')
      return `TEL;type=CELL;waid=${digits}:+${digits}\n`
    })
    const vcard = `BEGIN:VCARD\nVERSION:3.0\nN:;${name};;;\nFN:${name}\n${numbers.join('')}END:VCARD`
    return connection.send(to, {
      contacts: { displayName: name, contacts: [{ displayName: name, vcard }] },
    })
  },

  // to, question, options, selectable?
  poll: (connection, { to, question, options: values, selectable }) =>
    connection.send(to, { poll: { name: question, values, selectableCount: selectable ?? 1 } }),

  // poll: the id of one heard; options: all that is chosen now, none to take it back
  vote: (connection, { poll, options: chosen }) => {
    const { to, message } = pollVote(connection, poll, chosen)
    const additionalNodes = [{ tag: 'meta', attrs: { polltype: 'vote' } }]
    return connection.relay(to, message, { additionalNodes })
  },

  // target: an id said or heard; an empty emoji takes the reaction back
  reaction: (connection, { target, emoji }) => {
    const { key } = connection.message(target)
    return connection.send(key.remoteJid, { react: { text: emoji, key } })
  },

  // target: an id said
  edit: (connection, { target, text }) => {
    const { key } = connection.message(target)
    return connection.send(key.remoteJid, { text, edit: key, linkPreview: null })
  },
  revoke: (connection, { target }) => {
    const { key } = connection.message(target)
    return connection.send(key.remoteJid, { delete: key })
  },

  // ids: of messages heard
  read: (connection, { ids }) =>
    connection.sock.readMessages(ids.map((id) => connection.message(id).key)),
  played: (connection, { ids }) =>
    connection.sock.sendReceipts(
      ids.map((id) => connection.message(id).key),
      'played',
    ),

  // to, state: typing, recording, paused
  presence: (connection, { to, state }) =>
    connection.sock.sendPresenceUpdate(PRESENCES[state], connection.address(to)),
  // state: available, unavailable
  online: (connection, { state }) => connection.sock.sendPresenceUpdate(state),
  subscribe: (connection, { to }) => connection.sock.presenceSubscribe(connection.address(to)),

  // subject, members
  createGroup: async (connection, { subject, members }) => {
    const { id } = await connection.sock.groupCreate(subject, jids(connection, members))
    return { id }
  },
  group: async ({ sock }, { id }) => {
    const found = await sock.groupMetadata(id)
    return { id, subject: found.subject, members: found.participants.map((one) => one.id) }
  },
  leaveGroup: ({ sock }, { id }) => sock.groupLeave(id),
  // change: add, remove, promote, demote
  changeGroup: (connection, { id, members, change }) =>
    connection.sock.groupParticipantsUpdate(id, jids(connection, members), change),
  renameGroup: ({ sock }, { id, subject }) => sock.groupUpdateSubject(id, subject),
  inviteCode: async ({ sock }, { id }) => ({ code: await sock.groupInviteCode(id) }),
  joinGroup: async ({ sock }, { code }) => ({ id: await sock.groupAcceptInvite(code) }),

  // numbers; the answer has those that are on WhatsApp
  onWhatsApp: async ({ sock }, { numbers }) => ({
    found: (await sock.onWhatsApp(...numbers)).filter((one) => one.exists).map((one) => one.jid),
  }),
  block: (connection, { who }) => connection.sock.updateBlockStatus(connection.address(who), 'block'),
  unblock: (connection, { who }) =>
    connection.sock.updateBlockStatus(connection.address(who), 'unblock'),

  disconnect: (connection) => connection.close(),
  connect: (connection) => connection.open(),
  logout: (connection) => connection.sock.logout(),
}
