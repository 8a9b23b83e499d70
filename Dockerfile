# docker build -t captum-leam . && docker run --rm -v "$PWD/demo:/app/demo" captum-leam
FROM python:3.11-slim
RUN apt-get update && apt-get install --yes --no-install-recommends make && rm -rf /var/lib/apt/lists/*
WORKDIR /app
COPY . .
RUN make .venv/demo
CMD ["make", "demo"]
