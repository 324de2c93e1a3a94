package app

import (
	"context"
	"errors"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/exhume/exhume/internal/collector"
	"github.com/exhume/exhume/internal/evidence"
	"github.com/exhume/exhume/internal/ledger"
	"github.com/exhume/exhume/schemas"
)

// VerifiedEvidence is what was verified.
type VerifiedEvidence struct {
	evidence.Report
	// Ledger is the one whose knowledge of where the log ends was compared, empty when
	// none was; Unasked is why not, when there may be one.
	Ledger  string `json:"ledger,omitempty"`
	Unasked string `json:"unasked,omitempty"`
}

// VerifyEvidence verifies the log in a directory. Of the configured one the ledger,
// where there is one, tells besides where it ended.
func VerifyEvidence(ctx context.Context, cfg *Config, dir string) (v VerifiedEvidence, err error) {
	var anchors []schemas.EvidencePosition
	if sameFile(dir, cfg.Exhume.EvidenceDir) {
		pos, known, err := notedEnd(ctx, cfg, &v) // before the log is read, which goes on
		switch {
		case errors.Is(err, fs.ErrNotExist):
		case err != nil:
			v.Unasked = err.Error()
		case known:
			anchors = append(anchors, pos)
		}
	}
	v.Report, err = evidence.Verify(filepath.Join(dir, evidence.FileName), anchors...)
	return v, err
}

// notedEnd is where the configured log ended when the ledger was last written.
func notedEnd(ctx context.Context, cfg *Config, v *VerifiedEvidence) (pos schemas.EvidencePosition, known bool, err error) {
	l, err := ledger.OpenReader(ctx, LedgerURL(cfg))
	if err != nil {
		return pos, false, err
	}
	defer func() { _ = l.Close() }() // it was only read
	since, err := collector.Unfinished(ctx, l)
	if err != nil {
		return pos, false, err
	}
	if since != "" {
		return pos, false, errors.New("its rebuilding has not ended: run 'exhume ledger rebuild' again")
	}
	pos, known, err = l.PositionOf(ctx, writerOf(cfg.Exhume.EvidenceDir))
	if known {
		v.Ledger = l.Path()
	}
	return pos, known, err
}

func sameFile(a, b string) bool {
	one, err := os.Stat(a)
	if err != nil {
		return a == b
	}
	other, err := os.Stat(b)
	return err == nil && os.SameFile(one, other)
}
