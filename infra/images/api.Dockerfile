# The image of the API: Python, the API, its packages and gunicorn. Built by infra/images/api_image.py.
ARG BASE=python:3.13-slim
FROM ${BASE}
ENV PYTHONPATH=/api:/api/lambda_app:/api/packages PYTHONDONTWRITEBYTECODE=1 PYTHONUNBUFFERED=1 PORT=8000
COPY api/ /api/
RUN ["python3", "-m", "compileall", "-q", "/api"]
USER 65532:65532
WORKDIR /api
EXPOSE 8000
HEALTHCHECK --interval=10s --timeout=5s --start-period=15s CMD ["python3", "-c", "import os, urllib.request; urllib.request.urlopen(f'http://127.0.0.1:{os.environ[\"PORT\"]}/health', timeout=3)"]
CMD ["python3", "-m", "gunicorn", "--config", "python:infra.server.gunicorn_settings"]
