#!/bin/sh
# Makes the spoken prompts beside this script, one .pkt file each: Opus packets
# of 20 ms, 16 kHz mono, each after its length in two bytes. Needs espeak-ng,
# sox and Go. The files are committed; run this after changing a text.
set -eu
cd "$(dirname "$0")"
tmp=$(mktemp -d)
trap 'rm -rf "$tmp"' EXIT

say() {
	espeak-ng -v en-us -s 155 -p 45 -w "$tmp/voice.wav" "$2"
	# Cut silence off both ends, filter to the band of a phone line's better
	# kind, and bring all prompts to one loudness, about -20 dBFS.
	sox "$tmp/voice.wav" -r 16000 -c 1 -b 16 -e signed -L -t raw "$tmp/voice.raw" \
		silence 1 0.01 0.1% reverse silence 1 0.01 0.1% reverse \
		highpass 120 compand 0.005,0.1 6:-40,-24,-20,-16,0,-8 pad 0.1 0.1 norm -6
	go run -tags nolibopusfile pack.go <"$tmp/voice.raw" >"$1.pkt"
}

say alone "You are the only one in the conference. Please wait for the others."
say waiting-host "The conference has not started yet. Please wait for the host."
say lobby "You are in the lobby. Please wait until a moderator lets you in."
say lobby-denied "You were not admitted to the conference. Goodbye."
say lobby-admitted "You have been admitted to the conference."
say muted "You are muted."
say unmuted "You are no longer muted."
say ended "The conference has ended. Goodbye."
say full "The conference is full. Please try again later."
say connecting "One moment please. You are being connected."
say reconnecting "The connection to the conference was lost. Please hold."
say wrong-password "The password for the conference is missing or wrong."
say unavailable "The conference cannot be reached at the moment. Please try again later."
