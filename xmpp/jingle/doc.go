// Package jingle reads and writes the Jingle (XEP-0166, XEP-0167, XEP-0176,
// XEP-0320, XEP-0338, XEP-0339) that Jicofo speaks, in types of its own: an
// offer with its payload types, header extensions, transport and sources, the
// sources in XML or in Jitsi's compact JSON, and the answers of a client that
// has audio only.
package jingle
