// Shows the files that a program returned. Their names and contents are hostile.
import { fromBase64 } from "./base64.js";
import { element } from "./dom.js";
import { bytes } from "./format.js";

// Raster images only. An SVG or HTML file that is opened from here would be a document of this origin.
const IMAGE_TYPES = { gif: "image/gif", jpeg: "image/jpeg", jpg: "image/jpeg", png: "image/png", webp: "image/webp" };

let imageUrls = [];

/** Return the elements that show the artifacts of a result. */
export function artifactElements({ artifacts = [], artifacts_omitted: omitted = [] }) {
  for (const url of imageUrls) URL.revokeObjectURL(url);
  imageUrls = [];
  const missing = omitted.filter(({ reason }) => reason !== "unchanged"); // which the page has already
  const files = artifacts.map((artifact) => ({ path: artifact.path, content: contentOf(artifact) }));
  const images = files.filter((file) => imageType(file.path));
  const elements = images.map(figure);
  if (files.length || missing.length) {
    const items = [...files.map(downloadItem), ...missing.map(omittedItem)];
    elements.push(element("h3", {}, "Files"), element("ul", { class: "file-list" }, ...items));
  }
  return elements;
}

function contentOf({ content, content_base64: base64 }) {
  return typeof base64 === "string" ? fromBase64(base64) : new TextEncoder().encode(content ?? "");
}

function imageType(path) {
  return IMAGE_TYPES[path.split(".").pop().toLowerCase()];
}

function figure({ path, content }) {
  const url = URL.createObjectURL(new Blob([content], { type: imageType(path) }));
  imageUrls.push(url);
  return element("figure", {}, element("img", { src: url, alt: `Image ${path}` }), element("figcaption", { class: "mono" }, path));
}

function downloadItem({ path, content }) {
  const button = element(
    "button",
    { type: "button", class: "small", "aria-label": `Download ${path}`, onclick: () => download(path, content) },
    "Download",
  );
  return element("li", {}, element("span", { class: "mono grow" }, path), element("span", { class: "hint" }, bytes(content.length)), button);
}

function omittedItem({ path, reason, count }) {
  const name = path ?? (count > 1 ? `${count} more` : "More files");
  return element("li", {}, element("span", { class: "mono grow" }, name), element("span", { class: "hint" }, reason.replaceAll("_", " ")));
}

function download(path, content) {
  // The type makes a browser save the file even if the link is opened otherwise.
  const url = URL.createObjectURL(new Blob([content], { type: "application/octet-stream" }));
  element("a", { href: url, download: path.split("/").pop() }).click();
  setTimeout(() => URL.revokeObjectURL(url), 60_000);
}
