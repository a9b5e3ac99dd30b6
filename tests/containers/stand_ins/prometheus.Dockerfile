# A stand-in for the official Prometheus image: Debian's server and promtool, called in the same way.
ARG BASE_IMAGE
FROM ${BASE_IMAGE}
RUN apt-get update -qq && apt-get install -y -qq --no-install-recommends prometheus wget > /dev/null \
    && rm -rf /var/lib/apt/lists/* && mkdir -p /prometheus && chown 65534:65534 /prometheus
WORKDIR /prometheus
USER 65534
ENTRYPOINT ["/usr/bin/prometheus"]
