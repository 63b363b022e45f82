// Votes on polls. They are encrypted under a secret that comes with the poll, for its author and
// the voter by name; since either may be named by phone or by LID, reading one tries all four.
import { createCipheriv, createHash, hkdfSync, randomBytes } from 'node:crypto'
import { decryptPollVote, isLidUser, jidNormalizedUser, normalizeMessageContent, proto } from 'baileys'

const digest = (option) => createHash('sha256').update(option).digest()

function pollOf(message) {
  const content = normalizeMessageContent(message)
  const poll =
    content?.pollCreationMessage ?? content?.pollCreationMessageV2 ?? content?.pollCreationMessageV3
  if (!poll) throw new Error('that is not a poll')
  return {
    options: poll.options.map((option) => option.optionName),
    secret: Buffer.from(message.messageContextInfo.messageSecret),
  }
}

// Everybody that a message's author may be called, the way it came first.
export function authorsOf(connection, key) {
  const { me } = connection.sock.authState.creds
  const names = key.fromMe
    ? [me.lid, me.id]
    : [key.participant, key.participantAlt, key.remoteJid, key.remoteJidAlt]
  return names.filter((name) => name && !name.endsWith('@g.us')).map((name) => jidNormalizedUser(name))
}

export function pollVote(connection, pollId, chosen) {
  const { key, message } = connection.message(pollId)
  const { options, secret } = pollOf(message)
  const unknown = chosen.filter((option) => !options.includes(option))
  if (unknown.length) throw new Error(`the poll has no ${unknown.join(', ')}`)
  const [author] = authorsOf(connection, key)
  const { me } = connection.sock.authState.creds
  const voter = jidNormalizedUser(isLidUser(author) ? me.lid : me.id)
  const info = Buffer.from(`${pollId}${author}${voter}Poll Vote`)
  const sealing = Buffer.from(hkdfSync('sha256', secret, '', info, 32))
  const iv = randomBytes(12)
  const cipher = createCipheriv('aes-256-gcm', sealing, iv)
  cipher.setAAD(Buffer.from(`${pollId}\0${voter}`))
  const vote = proto.Message.PollVoteMessage.encode({ selectedOptions: chosen.map(digest) }).finish()
  const encPayload = Buffer.concat([cipher.update(vote), cipher.final(), cipher.getAuthTag()])
  return {
    to: key.remoteJid,
    message: {
      pollUpdateMessage: {
        pollCreationMessageKey: {
          remoteJid: key.remoteJid,
          fromMe: Boolean(key.fromMe),
          id: pollId,
          ...(key.participant && { participant: key.participant }),
        },
        vote: { encPayload, encIv: iv },
        senderTimestampMs: Date.now(),
      },
    },
  }
}

// All that a voter has chosen now, in words.
export function votedFor(connection, update, voteKey) {
  const pollId = update.pollCreationMessageKey.id
  const { key, message } = connection.message(pollId)
  const { options, secret } = pollOf(message)
  for (const pollCreatorJid of authorsOf(connection, key)) {
    for (const voterJid of authorsOf(connection, voteKey)) {
      const context = { pollCreatorJid, pollMsgId: pollId, pollEncKey: secret, voterJid }
      const vote = opened(update.vote, context)
      if (!vote) continue
      const chosen = vote.selectedOptions.map((hash) => Buffer.from(hash).toString('hex'))
      return options.filter((option) => chosen.includes(digest(option).toString('hex')))
    }
  }
  throw new Error(`the vote ${voteKey.id} cannot be decrypted under any name`)
}

function opened(vote, context) {
  try {
    return decryptPollVote(vote, context)
  } catch {
    return undefined
  }
}
