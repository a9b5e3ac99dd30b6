# A stand-in for the official Redis image: Debian's server, called in the same way.
ARG BASE_IMAGE
FROM ${BASE_IMAGE}
RUN apt-get update -qq && apt-get install -y -qq --no-install-recommends redis-server redis-tools > /dev/null \
    && rm -rf /var/lib/apt/lists/* && mkdir /data && chown 999:999 /data
WORKDIR /data
USER 999
CMD ["redis-server"]
