// Package jitsitest wires simulated Jitsi shards for tests: an XMPP server, a
// Jicofo and videobridges each, a load balancer in front of several, and
// browsers, which are participants with a voice and ears.
package jitsitest
