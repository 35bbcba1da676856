// Package codec encodes and decodes the audio of both legs of a call: G.711
// (ITU-T G.711), G.722 (ITU-T G.722, RFC 3551 §4.5.2) and Opus (RFC 6716,
// RFC 7587).
//
// All work on buffers of the caller, keep no reference to them and allocate
// nothing after construction. PCM is mono, 16 bit, at the codec's own rate:
// 8 kHz for G.711, 16 kHz for G.722, and for Opus whatever rate was asked for,
// since libopus decodes straight to it and encodes straight from it.
package codec
