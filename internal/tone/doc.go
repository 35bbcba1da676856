// Package tone makes and measures test audio: sines, the share of energy at a
// frequency (Goertzel), loudness in dBFS, a speech-presence measure, and WAV
// files. Samples are mono signed 16-bit throughout.
package tone
