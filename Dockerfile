# docker build -t ambient .   (a PyTorch for CPUs: --build-arg PIP_EXTRA_INDEX_URL=... of PyTorch's own index)
# docker run -v "$PWD":/work ambient worth photos/ --sigma 0.2 --time 10m
FROM python:3.11-slim
ARG PIP_EXTRA_INDEX_URL
COPY . /src
RUN pip install --no-cache-dir "/src[science]" && rm -rf /src
WORKDIR /work
ENTRYPOINT ["ambient"]
CMD ["--help"]
