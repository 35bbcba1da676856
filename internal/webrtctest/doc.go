// Package webrtctest calls the gateway with a WebRTC phone: JsSIP in a headless
// Chromium, over secure WebSocket.
package webrtctest
