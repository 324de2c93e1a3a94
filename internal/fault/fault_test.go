package fault

import (
	"errors"
	"fmt"
	"io/fs"
	"testing"

	"github.com/exhume/exhume/schemas"
)

func TestCode(t *testing.T) {
	inner := New(schemas.CodeArchiveDown, "archive %q: %w", "a.sqlite", fs.ErrNotExist)
	for _, tt := range []struct {
		name string
		err  error
		want schemas.Code
	}{
		{"itself", inner, schemas.CodeArchiveDown},
		{"wrapped", fmt.Errorf("open: %w", inner), schemas.CodeArchiveDown},
		{"joined", errors.Join(errors.New("other"), inner), schemas.CodeArchiveDown},
		{"outermost counts", New(schemas.CodeTooLarge, "big: %w", inner), schemas.CodeTooLarge},
		{"without a code", fs.ErrNotExist, schemas.CodeInternal},
	} {
		if got := CodeOf(tt.err); got != tt.want {
			t.Errorf("%s: code %s, want %s", tt.name, got, tt.want)
		}
		if got := Is(tt.err, tt.want); got != (tt.want != schemas.CodeInternal) {
			t.Errorf("%s: Is(%s) = %v", tt.name, tt.want, got)
		}
	}
	if !errors.Is(inner, fs.ErrNotExist) || inner.Error() != `archive "a.sqlite": file does not exist` {
		t.Errorf("%v does not wrap its cause or say it", inner)
	}
}
