//go:build ignore

// Pack encodes 48 kHz mono PCM (16 bit, little endian) from standard input to
// Opus packets of 20 ms, each after its length in two bytes, big endian.
package main

import (
	"encoding/binary"
	"io"
	"log"
	"os"

	"brewline/media/codec"
)

func main() {
	in, err := io.ReadAll(os.Stdin)
	if err != nil {
		log.Fatal(err)
	}
	e, err := codec.NewOpusEncoder(48000, codec.OpusOptions{Complexity: 10, Bitrate: 40000})
	if err != nil {
		log.Fatal(err)
	}
	pcm, packet := make([]int16, 960), make([]byte, 1500)
	var out []byte
	for len(in) > 1 {
		clear(pcm)
		n := min(len(in)/2, len(pcm))
		for i := range n {
			pcm[i] = int16(binary.LittleEndian.Uint16(in[2*i:]))
		}
		in = in[2*n:]
		k, err := e.Encode(packet, pcm)
		if err != nil {
			log.Fatal(err)
		}
		out = binary.BigEndian.AppendUint16(out, uint16(k))
		out = append(out, packet[:k]...)
	}
	if _, err := os.Stdout.Write(out); err != nil {
		log.Fatal(err)
	}
}
