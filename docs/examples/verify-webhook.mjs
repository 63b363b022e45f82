// Verifies a Waypost webhook with nothing but Node's own crypto.
//
// Reads {"secret", "headers", "body"} as JSON from standard input, where body is the raw body in
// base64, and exits with 0 if every signature fits. In a server, keep the raw bytes: a body that
// was parsed and written again is not the body that was signed.
import { createHmac, timingSafeEqual } from "node:crypto";
import { readFileSync } from "node:fs";

const { secret, headers, body } = JSON.parse(readFileSync(0, "utf8"));
const raw = Buffer.from(body, "base64");

const same = (a, b) => {
  const [left, right] = [Buffer.from(a), Buffer.from(b)];
  return left.length === right.length && timingSafeEqual(left, right);
};

// 1. Keyed with the whole secret, as text: hex, with and without GitHub's prefix.
const hex = createHmac("sha256", secret).update(raw).digest("hex");

// 2. Standard Webhooks: keyed with the bytes that the secret encodes, over id.timestamp.body.
const key = Buffer.from(secret.replace(/^whsec_/, ""), "base64");
const id = headers["webhook-id"];
const timestamp = headers["webhook-timestamp"];
const signed = createHmac("sha256", key)
  .update(`${id}.${timestamp}.`)
  .update(raw)
  .digest("base64");
const fresh = Math.abs(Date.now() / 1000 - Number(timestamp)) < 300;

const checks = {
  "X-Webhook-Signature": same(headers["x-webhook-signature"], hex),
  "X-Hub-Signature-256": same(headers["x-hub-signature-256"], `sha256=${hex}`),
  "webhook-signature": headers["webhook-signature"]
    .split(" ")
    .some((token) => same(token, `v1,${signed}`)),
  "webhook-timestamp": fresh,
};

const wrong = Object.keys(checks).filter((name) => !checks[name]);
if (wrong.length > 0) {
  console.error(`does not fit: ${wrong.join(", ")}`);
  process.exit(1);
}
