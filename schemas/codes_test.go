package schemas

import (
	"regexp"
	"testing"
)

// Every code is explained, once, with a class that is known.
func TestCodes(t *testing.T) {
	classes := map[Class]bool{ClassPermanent: true, ClassTransient: true, ClassBackendDown: true, ClassWorkerSick: true, ClassPoison: true}
	form := regexp.MustCompile(`^[a-z]+(_[a-z]+)*$`)
	seen := map[Code]bool{}
	for _, c := range Codes() {
		if seen[c.Code] || !form.MatchString(string(c.Code)) || !classes[c.Class] || c.Cause == "" || c.Remedy == "" {
			t.Errorf("code %+v is there twice, badly named or not explained", c)
		}
		seen[c.Code] = true
		if c.Code.Info() != c || c.Code.Class() != c.Class {
			t.Errorf("code %s does not find itself", c.Code)
		}
	}
	if got := Code("from_the_future").Class(); got != ClassPermanent {
		t.Errorf("an unknown code is %s, want permanent", got)
	}
}

func TestCheckName(t *testing.T) {
	for name, ok := range map[string]bool{
		"a": true, "m-3f9a_X": true, "0": true, "": false, "-a": false, "a.b": false, "a b": false, "a*": false, "a>": false, "é": false,
		"0123456789012345678901234567890123456789012345678901234567890123":  true,
		"01234567890123456789012345678901234567890123456789012345678901234": false,
		"latest": false, "single": false,
	} {
		if err := CheckName(name); (err == nil) != ok {
			t.Errorf("CheckName(%q) = %v, want ok %v", name, err, ok)
		}
	}
}
