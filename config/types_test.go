package config

import "testing"

func TestMask(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct{ mode, number, want string }{
		{"none", "+49301234567", "+49301234567"},
		{"last4", "+49301234567", "********4567"},
		{"last4", "1234", "***"},
		{"last4", "Zoë Ångström", "********tröm"},
		{"last4", "", ""},
		{"all", "+49301234567", "***"},
		{"", "+49301234567", "***"},
	} {
		if got := (Gateway{MaskNumbers: tt.mode}).Mask(tt.number); got != tt.want {
			t.Errorf("%s of %s: got %s, want %s", tt.mode, tt.number, got, tt.want)
		}
	}
}
