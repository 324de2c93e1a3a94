package broker

import (
	"encoding/json"
	"fmt"
	"math"
	"math/big"
	"strings"
	"testing"
	"time"

	"github.com/nats-io/nats.go"

	"github.com/exhume/exhume/schemas"
)

// A broker's URL that cannot be used is refused without its password.
func FuzzOptions(f *testing.F) {
	f.Fuzz(func(t *testing.T, scheme, password, host string) {
		if len(password) < 8 || strings.Contains(password, "://") || strings.ContainsAny(host, "@") {
			return
		}
		o := Options{URL: scheme + "://user:" + password + "@" + host}
		if strings.Contains(scheme+"://user:***@"+host, password) {
			return // it is no secret
		}
		if strings.Contains(o.String(), password) {
			t.Errorf("%q shows the password", o.String())
		}
		err := o.validate()
		if o.Context = "production"; err != nil && strings.Contains(err.Error(), password) || strings.Contains(o.validate().Error(), password) {
			t.Errorf("%q shows the password", err)
		}
	})
}

// How far a rate is used up is kept as it was, and whatever is kept holds nobody
// up for longer than is allowed.
func FuzzRate(f *testing.F) {
	f.Fuzz(func(t *testing.T, text string, now int64, units, perSecond float64) {
		r, err := parseRate(text)
		if err != nil {
			return
		}
		if again, err := parseRate(r.String()); err != nil || !again.free.Equal(r.free) || again.perSecond != r.perSecond && !math.IsNaN(r.perSecond) {
			t.Errorf("%q is %v, and that %v, %v", text, r, again, err)
		}
		if !(perSecond > 0) || !(units >= 0) { // as Reserve
			return
		}
		from := time.Unix(now%(1<<33), 0)
		after, at := r.take(from, units, perSecond)
		if wait := at.Sub(from); wait < 0 || wait > rateAhead {
			t.Errorf("%q: at %v a wait of %v", text, from, wait)
		}
		if ahead := after.free.Sub(from); ahead < -rateBurst-time.Millisecond || ahead > rateAhead || after.perSecond != perSecond {
			t.Errorf("%q: at %v used up %v ahead, %v a second", text, from, ahead, after.perSecond)
		}
		if _, err := parseRate(after.String()); err != nil {
			t.Error(err)
		}
	})
}

// The subject that a server denies is found in its words, whatever it is called.
func FuzzDenied(f *testing.F) {
	f.Fuzz(func(t *testing.T, subject, text string) {
		for _, c := range []struct {
			words string
			want  right
		}{{"Publish", toPublish(subject)}, {"Subscription", toSubscribe(subject)}} {
			err := fmt.Errorf("%w: Permissions Violation for %s to %q", nats.ErrPermissionViolation, c.words, subject)
			if got, ok := deniedIn(err); !ok || got != c.want {
				t.Errorf("%v: %v, %v", err, got, ok)
			}
		}
		if got, ok := deniedIn(fmt.Errorf("%w: %s", nats.ErrPermissionViolation, text)); !ok && got != (right{}) {
			t.Errorf("%q: %v", text, got)
		}
	})
}

// The indexes that stand beside a message are what its publisher put there.
func FuzzIndexes(f *testing.F) {
	f.Fuzz(func(t *testing.T, first, last string) {
		d := &Delivery{msg: &nats.Msg{Header: nats.Header{firstHeader: {first}, lastHeader: {last}}}}
		from, to, ok := d.Indexes()
		a, aok := new(big.Int).SetString(first, 10)
		b, bok := new(big.Int).SetString(last, 10)
		if want := aok && bok && a.IsInt64() && b.IsInt64(); ok != want || ok && (a.Int64() != from || b.Int64() != to) {
			t.Errorf("%q to %q are %d to %d, %v", first, last, from, to, ok)
		}
	})
}

// An answer that has pages is cut to what fits, and says where to go on.
func FuzzEncode(f *testing.F) {
	f.Fuzz(func(t *testing.T, n uint8, detail string, most uint16) {
		page := schemas.ResultsPage{Batch: "b", Next: 1000}
		for i := range int64(n) {
			page.Results = append(page.Results, schemas.Result{Request: schemas.Request{Batch: "b", Index: 3 * i}, Detail: detail})
		}
		data, err := encode(page, int(most))
		if err != nil {
			if len(page.Results) > 1 {
				page.Results = page.Results[:1]
			}
			if one, merr := json.Marshal(page); merr != nil || len(one) <= int(most)-len(`"next":000,`) {
				t.Errorf("%v although one result has %d bytes of %d", err, len(one), most)
			}
			return
		}
		var got schemas.ResultsPage
		if err := json.Unmarshal(data, &got); err != nil || len(data) > int(most) {
			t.Fatalf("%d bytes of %d: %v", len(data), most, err)
		}
		want := page.Next
		if len(got.Results) < int(n) {
			want = page.Results[len(got.Results)].Index
		}
		if got.Next != want || n > 0 && len(got.Results) == 0 {
			t.Errorf("%d of %d results, the next is %d, want %d", len(got.Results), n, got.Next, want)
		}
	})
}
