// A link that holds the program in its fragment, which browsers do not send to the server.
import { fromBase64Url, toBase64Url } from "./base64.js";

const PREFIX = "#program=";
const MAX_LINK_CHARS = 64 * 1024; // longer URLs get lost in chats and mails
const MAX_PROGRAM_BYTES = 4 * 1024 * 1024; // a small fragment may hold a large program

/** Return the URL of this page with a program. Raise RangeError if it would be too long. */
export async function linkTo(program) {
  const packed = await throughStream(new TextEncoder().encode(JSON.stringify(program)), new CompressionStream("deflate-raw"));
  const url = new URL(location.href);
  url.hash = PREFIX + toBase64Url(packed);
  if (url.href.length > MAX_LINK_CHARS) throw new RangeError("The program and its files are too large for a link.");
  return url.href;
}

/** Return the program in the fragment of this page, or null. Raise an exception if it is malformed. */
export async function programInLink() {
  if (!location.hash.startsWith(PREFIX)) return null;
  const packed = fromBase64Url(location.hash.slice(PREFIX.length));
  const text = new TextDecoder().decode(await throughStream(packed, new DecompressionStream("deflate-raw")));
  return checked(JSON.parse(text));
}

function checked(program) {
  const isText = (value) => typeof value === "string";
  const isList = (value) => value === undefined || Array.isArray(value);
  const { code, args, files, artifacts, runs } = Object(program);
  if (!isText(code) || ![args, files, artifacts, runs].every(isList)) throw new TypeError("not a program");
  const texts = [...(args ?? []), ...(artifacts ?? []), ...(files ?? []).map(({ path }) => path)];
  if (!texts.every(isText)) throw new TypeError("not a program");
  return program;
}

async function throughStream(content, transform) {
  const reader = new Blob([content]).stream().pipeThrough(transform).getReader();
  const chunks = [];
  let size = 0;
  for (let chunk = await reader.read(); !chunk.done; chunk = await reader.read()) {
    chunks.push(chunk.value);
    size += chunk.value.length;
    if (size > MAX_PROGRAM_BYTES) {
      await reader.cancel();
      throw new RangeError("too large");
    }
  }
  return new Uint8Array(await new Blob(chunks).arrayBuffer());
}
