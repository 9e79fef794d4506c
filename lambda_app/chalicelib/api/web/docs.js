"use strict";

SwaggerUIBundle({
  domNode: document.getElementById("reference"),
  url: document.getElementById("reference").dataset.document,
  deepLinking: true,
  persistAuthorization: false,
  tryItOutEnabled: true,
  validatorUrl: null, // no request to another host
});
