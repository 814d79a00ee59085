#!/bin/sh
# Makes the certificates of the tests anew: an authority that nobody else trusts, and servers it vouches for.
# They last a hundred years and open nothing: their keys are public with this repository.
set -eu
cd "$(dirname "$0")"
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

key() { openssl ecparam -name prime256v1 -genkey -noout -out "$1"; }

server() { # file, authority, name of the certificate, days
    key "$work/$1.key"
    openssl req -new -key "$work/$1.key" -subj "/CN=$3" -out "$work/$1.csr"
    printf 'subjectAltName=DNS:%s\nbasicConstraints=CA:FALSE\nextendedKeyUsage=serverAuth\n' "$3" > "$work/$1.ext"
    openssl x509 -req -in "$work/$1.csr" -CA "$2.pem" -CAkey "$work/$2.key" -CAcreateserial -CAserial "$work/serial" \
        -extfile "$work/$1.ext" -days "$4" -out "$work/$1.crt" 2>/dev/null
    cat "$work/$1.key" "$work/$1.crt" > "$1.pem"
}

authority() {
    key "$work/$1.key"
    openssl req -x509 -new -key "$work/$1.key" -subj "/CN=Test authority $1" -days 36500 \
        -addext "keyUsage=critical,keyCertSign,cRLSign" -out "$1.pem"
}

authority authority
server good authority images.example.test 36500
server other-name authority other.example.test 36500
authority stranger
server unknown-authority stranger images.example.test 36500
rm stranger.pem
