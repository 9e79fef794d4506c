// Base64 of bytes, and its alphabet for URLs (RFC 4648).

const CHUNK_BYTES = 0x8000; // more arguments of one call would exceed the stack

/** Return bytes as text. */
export function toBase64(content) {
  let binary = "";
  for (let start = 0; start < content.length; start += CHUNK_BYTES) {
    binary += String.fromCharCode(...content.subarray(start, start + CHUNK_BYTES));
  }
  return btoa(binary);
}

/** Return the bytes of such text. Raise an exception for other text. */
export function fromBase64(text) {
  return Uint8Array.from(atob(String(text)), (character) => character.charCodeAt(0));
}

/** Return bytes as text that may stand in a URL. */
export function toBase64Url(content) {
  return toBase64(content).replaceAll("+", "-").replaceAll("/", "_").replaceAll("=", "");
}

/** Return the bytes of text from a URL. Raise an exception for other text. */
export function fromBase64Url(text) {
  return fromBase64(text.replaceAll("-", "+").replaceAll("_", "/"));
}
