// Package jicofo is a simulated Jicofo. It attaches to an XMPP server as the
// XEP-0114 component focus.<domain> — to the simulated server of package
// xmppd and to a real Prosody alike —, answers conference requests, joins the
// rooms as their focus, and negotiates Jingle sessions with their occupants,
// whose media it places on bridges of package jvb.
package jicofo
