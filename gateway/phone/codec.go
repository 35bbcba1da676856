package phone

import (
	"strings"

	"brewline/sip"
)

// codecName is media's name of an SDP codec.
func codecName(c sip.Codec) string { return strings.ToLower(c.Name) }
