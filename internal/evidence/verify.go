package evidence

import (
	"cmp"
	"fmt"
	"os"
	"slices"

	"github.com/exhume/exhume/schemas"
)

// Report is what Verify read.
type Report struct {
	// Lines is the number of whole lines; Records of them are exhume's and
	// Foreign are not.
	Lines   int64 `json:"lines"`
	Records int64 `json:"records"`
	Foreign int64 `json:"foreign"`
	// Batches is how many batches exhume's lines are about; First and Last are when
	// the first and the last of them were written.
	Batches int    `json:"batches"`
	First   string `json:"first,omitempty"`
	Last    string `json:"last,omitempty"`
	// Torn is the number of bytes after the last newline, which an append that
	// was cut short has left and the next one will clear away.
	Torn int64 `json:"torn"`
	// End is the position after the last whole line.
	End schemas.EvidencePosition `json:"end"`
}

// BrokenError says where a log is not what was written.
type BrokenError struct {
	Path string
	// Line is the number of the bad line, from 1; of what is missing at the
	// end, the number that its first line would have.
	Line int64
	Why  string
}

func (e *BrokenError) Error() string {
	return fmt.Sprintf("evidence log %s does not verify: line %d: %s", e.Path, e.Line, e.Why)
}

// Verify reads the log and checks that each of exhume's lines carries the hash
// of the line before it and the next sequence number. The first fault comes back
// as a *BrokenError, along with what was read before it.
//
// The chain alone cannot tell that lines at the very end were changed or cut
// off; give it positions that were noted elsewhere (anchors) and it checks that
// the log passes through each of them.
//
// Lines that exhume did not write carry no hash: of those that stand together
// only the last is vouched for, and so is not the record right before them,
// unless an anchor is.
func Verify(path string, anchors ...schemas.EvidencePosition) (Report, error) {
	f, err := os.Open(path)
	if err != nil {
		return Report{}, fmt.Errorf("evidence log: %w", err)
	}
	defer func() { _ = f.Close() }()
	v := verifier{report: Report{End: schemas.EvidencePosition{Prev: noLine}}, batches: map[string]bool{}}
	v.anchors = slices.DeleteFunc(slices.Clone(anchors), func(p schemas.EvidencePosition) bool { return p.Offset == 0 })
	slices.SortFunc(v.anchors, func(a, b schemas.EvidencePosition) int { return cmp.Compare(a.Offset, b.Offset) })
	for l, err := range lines(f, 0) {
		if err != nil {
			return v.report, fmt.Errorf("evidence log %s: %w", path, err)
		}
		if !l.whole {
			v.report.Torn = int64(len(l.text))
			break
		}
		if v.next(l); v.broken != nil {
			break
		}
	}
	if v.finish(); v.broken != nil {
		v.broken.Path = path
		return v.report, v.broken
	}
	return v.report, nil
}

type verifier struct {
	report  Report
	anchors []schemas.EvidencePosition
	batches map[string]bool
	broken  *BrokenError
	// lastOurs says whether the line before is exhume's.
	lastOurs bool
	// doubted is a line whose hash of the line before is wrong: one of the two
	// was changed. The line after tells which, being chained to the second.
	doubted int64
}

func (v *verifier) fail(line int64, format string, args ...any) {
	v.broken = &BrokenError{Line: line, Why: fmt.Sprintf(format, args...)}
}

func (v *verifier) next(l line) {
	s, ours := readStamp(l.text)
	if v.doubted != 0 {
		v.settle(s, ours)
		return
	}
	if ours {
		v.check(l.number, s)
	}
	if v.broken != nil {
		return
	}
	v.count(l, s, ours)
	v.checkAnchors(l)
}

// check holds one of exhume's lines against the lines before it.
func (v *verifier) check(number int64, s stamp) {
	end := v.report.End
	chained, inOrder := s.Prev == end.Prev, s.Seq == end.Seq+1
	switch {
	case chained && inOrder:
	case chained:
		v.fail(number, "its seq is %d, and %d was to follow: the line was changed", s.Seq, end.Seq+1)
	case inOrder && number > 1:
		v.doubted = number
	case inOrder:
		v.fail(number, "it is the first line, but was written after others: lines before it were removed")
	case s.Seq == end.Seq+2 && !v.lastOurs && v.report.Records > 0:
		v.fail(number-1, "record %d is not there: this line was changed, or the record after it removed", end.Seq+1)
	case s.Seq > end.Seq+1:
		v.fail(number, "its seq is %d, and %d was to follow: lines before it were removed or moved", s.Seq, end.Seq+1)
	default:
		v.fail(number, "its seq is %d, and %d was to follow: the line was moved or repeated", s.Seq, end.Seq+1)
	}
}

// settle blames the doubted line or the one before it by what the line after
// says, if it is one of exhume's.
func (v *verifier) settle(after stamp, ours bool) {
	switch {
	case !ours:
		v.fail(v.doubted, "it is not chained to line %d: one of the two was changed, or a line between them removed", v.doubted-1)
	case after.Prev == v.report.End.Prev:
		v.fail(v.doubted-1, "line %d is chained to other content: the line was changed or added, or one after it was removed", v.doubted)
	default:
		v.fail(v.doubted, "it is not chained to line %d, nor the next line to it: the line was changed", v.doubted-1)
	}
}

func (v *verifier) count(l line, s stamp, ours bool) {
	r := &v.report
	r.Lines++
	if v.lastOurs = ours; ours {
		r.Records++
		r.End.Seq = s.Seq
		r.First, r.Last = cmp.Or(r.First, s.TS), s.TS
		if s.Batch != "" && !v.batches[s.Batch] {
			v.batches[s.Batch] = true
			r.Batches++
		}
	} else {
		r.Foreign++
	}
	r.End.Offset, r.End.Prev = l.end, hashLine(l.text)
}

func (v *verifier) checkAnchors(l line) {
	for len(v.anchors) > 0 && v.anchors[0].Offset <= l.end && v.broken == nil {
		a := v.anchors[0]
		v.anchors = v.anchors[1:]
		if a != v.report.End && v.doubted == 0 {
			v.fail(l.number, "it is not the line that was noted to end at byte %d with record %d: it was changed, or lines before it were", a.Offset, a.Seq)
		}
	}
}

func (v *verifier) finish() {
	switch {
	case v.broken != nil:
	case v.doubted != 0:
		v.settle(stamp{}, false)
	case len(v.anchors) > 0:
		a := v.anchors[0]
		v.fail(v.report.Lines+1, "the log ends at byte %d, but was noted to reach byte %d with record %d: lines at the end were removed", v.report.End.Offset, a.Offset, a.Seq)
	}
}
