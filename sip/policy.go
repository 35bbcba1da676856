package sip

import (
	"slices"
	"strings"
	"time"
)

// Reliable says whether provisional responses are reliable (RFC 3262).
type Reliable int

// The values of Policy.Reliable.
const (
	ReliableOff       Reliable = iota
	ReliableSupported          // where the peer supports it, or asks for it
	ReliableRequired           // required of the peer in calls that we make
)

// Policy is what the peer of a dialog may do and is asked for. Session timers
// that the peer asks for are agreed to in any case.
type Policy struct {
	SessionTimer time.Duration // Session-Expires that we ask for (RFC 4028); 0: none
	Reliable     Reliable
	Transfer     bool // whether REFER (RFC 3515) and Replaces (RFC 3891) are taken
}

// allow lists the methods we handle.
func (p Policy) allow() string {
	s := "INVITE, ACK, BYE, CANCEL, OPTIONS, INFO, UPDATE"
	if p.Reliable != ReliableOff {
		s += ", PRACK"
	}
	if p.Transfer {
		s += ", REFER"
	}
	return s
}

// extensions are the option tags that we support.
func (p Policy) extensions() []string {
	tags := []string{"timer"}
	if p.Reliable != ReliableOff {
		tags = append(tags, "100rel")
	}
	if p.Transfer {
		tags = append(tags, "replaces")
	}
	return tags
}

func (p Policy) headers() []Header {
	return []Header{{"Allow", p.allow()}, {"Supported", strings.Join(p.extensions(), ", ")}}
}

// unsupported returns the option tags of Require that we do not know.
func (p Policy) unsupported(m message) string {
	known := p.extensions()
	return clean(strings.Join(slices.DeleteFunc(tokens(headerValues(m, "Require")), func(t string) bool {
		return slices.Contains(known, t)
	}), ", "))
}

// supports reports whether a message has an option tag in Supported or Require.
func supports(m message, tag string) bool {
	return slices.Contains(tokens(headerValues(m, "Supported")), tag) || requires(m, tag)
}

func requires(m message, tag string) bool {
	return slices.Contains(tokens(headerValues(m, "Require")), tag)
}

// allows reports whether a message lists a method in Allow.
func allows(m message, method string) bool {
	return slices.Contains(tokens(headerValues(m, "Allow")), strings.ToLower(method))
}
