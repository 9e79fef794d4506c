# The registry's Python image with the Debian packages from which the sandbox image takes files.
ARG BASE
FROM ${BASE}
ARG PACKAGES
RUN apt-get update && apt-get upgrade -y && apt-get install -y --no-install-recommends ${PACKAGES}
