"use strict";

const dark = matchMedia("(prefers-color-scheme: dark)");

function applyScheme() {
  document.documentElement.classList.toggle("dark-mode", dark.matches); // Swagger UI has the colors
}

dark.addEventListener("change", applyScheme);
applyScheme();
SwaggerUIBundle({
  domNode: document.getElementById("reference"),
  url: document.getElementById("reference").dataset.document,
  deepLinking: true,
  persistAuthorization: false,
  tryItOutEnabled: true,
  validatorUrl: null, // no request to another host
});
