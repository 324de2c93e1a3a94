package webhook

import (
	"crypto/hmac"
	"crypto/sha256"
	"encoding/base64"
	"errors"
	"fmt"
	"strings"
	"time"
)

// minSecret is the fewest bytes of a secret, as the specification has it.
const minSecret = 24

// parseSecrets reads secrets with spaces between. Errors never repeat them.
func parseSecrets(text string) (keys [][]byte, err error) {
	const remedy = `make one with: echo "whsec_$(openssl rand -base64 32)"`
	for i, s := range strings.Fields(text) {
		key := []byte(s)
		if encoded, ok := strings.CutPrefix(s, "whsec_"); ok {
			if key, err = base64.StdEncoding.DecodeString(encoded); err != nil {
				return nil, fmt.Errorf("webhook: what follows whsec_ in secret %d is not base64; %s", i+1, remedy)
			}
		}
		if len(key) < minSecret {
			return nil, fmt.Errorf("webhook: secret %d has %d bytes, want %d at least; %s", i+1, len(key), minSecret, remedy)
		}
		keys = append(keys, key)
	}
	if keys == nil {
		return nil, errors.New("webhook: there is no secret to sign with; " + remedy)
	}
	return keys, nil
}

// signatures signs a body with each key.
func signatures(keys [][]byte, id string, at time.Time, body []byte) string {
	all := make([]string, len(keys))
	for i, key := range keys {
		mac := hmac.New(sha256.New, key)
		fmt.Fprintf(mac, "%s.%d.%s", id, at.Unix(), body) //nolint:errcheck // a hash takes everything
		all[i] = "v1," + base64.StdEncoding.EncodeToString(mac.Sum(nil))
	}
	return strings.Join(all, " ")
}
