#!/usr/bin/env bash
# Makes the certificates of the test server, with openssl (3.0): an authority, whose key is thrown away, and servers that it
# signed. They protect nothing: their key is public. A new run replaces all of them.
set -euo pipefail
cd "$(dirname "$0")"
tmp=$(mktemp -d)
trap 'rm -rf "$tmp"' EXIT

key() { openssl ecparam -name prime256v1 -genkey -noout | openssl pkcs8 -topk8 -nocrypt; }
key >"$tmp/authority.key"
key >server.key

# `openssl ca`, because it takes dates: clocks of machines that run tests go wrong.
touch "$tmp/index"
cat >"$tmp/config" <<EOF
[ca]
default_ca = tests
[tests]
database = $tmp/index
new_certs_dir = $tmp
rand_serial = yes
unique_subject = no
default_md = sha256
policy = any
[any]
commonName = supplied
[authority]
basicConstraints = critical,CA:TRUE
keyUsage = critical,keyCertSign
[own]
basicConstraints = critical,CA:TRUE
subjectAltName = IP:127.0.0.1
[alone]
basicConstraints = critical,CA:FALSE
subjectAltName = IP:127.0.0.1
[server]
basicConstraints = critical,CA:FALSE
keyUsage = critical,digitalSignature
extendedKeyUsage = serverAuth
subjectAltName = IP:127.0.0.1
EOF
sign() { # KEY NAME EXTENSIONS START END MORE...
    openssl req -new -key "$1" -subj "/CN=$2" -out "$tmp/request"
    openssl ca -batch -notext -config "$tmp/config" -in "$tmp/request" -extensions "$3" -startdate "$4" -enddate "$5" \
        "${@:6}"
}
first=20200101000000Z last=21200101000000Z
sign "$tmp/authority.key" "tensormill tests" authority $first $last -selfsign -keyfile "$tmp/authority.key" \
    -out authority.pem
# A server that signed itself, as `openssl req -x509` does it when nobody asks for more.
sign server.key 127.0.0.1 own $first $last -selfsign -keyfile server.key -out own.pem
# And one that did it with less.
sign server.key 127.0.0.1 alone $first $last -selfsign -keyfile server.key -out alone.pem
by=(-cert authority.pem -keyfile "$tmp/authority.key")
sign server.key "test server" server $first $last "${by[@]}" -out server.pem
sign server.key "test server" server $first 20200102000000Z "${by[@]}" -out expired.pem
