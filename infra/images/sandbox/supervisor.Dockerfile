# The supervisor on top of the image of a runtime. Built by sandbox_image.py.
ARG BELOW
FROM ${BELOW}
# PYTHONPATH of a sandbox has this directory, so that Python imports the supervisor when it starts.
COPY sitecustomize/ /sandbox/sitecustomize/
# The bytecode is never checked against the sources, because the image is read-only.
RUN ["python3", "-m", "compileall", "-q", "--invalidation-mode", "unchecked-hash", "/sandbox"]
