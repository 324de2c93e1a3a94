package main

import (
	"bufio"
	"encoding/csv"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math"
	"strconv"
	"time"

	"github.com/spf13/cobra"

	"github.com/exhume/exhume/internal/app"
	"github.com/exhume/exhume/internal/fault"
	"github.com/exhume/exhume/internal/restore"
	"github.com/exhume/exhume/schemas"
)

// planSamples is how many items are named for each reason why items would fail.
const planSamples = 3

// planFlags are the flags of plan beyond those of commands that submit.
type planFlags struct {
	batchRestoreFlags
	only  string
	items bool
}

func (c *cli) planCommand() *cobra.Command {
	var f planFlags
	cmd := &cobra.Command{
		Use:     "plan MANIFEST",
		GroupID: groupRestore,
		Short:   "Tell what restoring a manifest would do, and do nothing",
		Long: `Tell what batch-restore would do with a manifest, a file or - for standard input,
and do nothing: each item is looked up in the archive and compared with what stands
under its output. Nothing is written anywhere.

An item would be restored (nothing stands there), replace what stands there, stay
unchanged (its content stands there already), or fail, with the code and the reason.
Whether its bytes are intact only restoring tells. The exit code is 2 when an item
would fail or a row is invalid.

The table has the totals only, unless --items or --only asks for items. CSV can be
submitted as a manifest.`,
		Example: `  exhume plan manifest.json --by ops --root /srv/restored
  exhume plan items.csv --by ops --overwrite if-different --only replace
  exhume plan items.csv --by ops --only restore -o csv | exhume batch-restore - --by ops --root .
  exhume plan manifest.json --by ops -o json | jq .totals`,
		Args: exactArgs("MANIFEST"),
		RunE: func(cmd *cobra.Command, args []string) error { return c.plan(cmd, args[0], f) },
	}
	fs := cmd.Flags()
	manifestFlags(fs, &f.batchRestoreFlags)
	natsFlags(fs)
	// What only restoring needs is accepted, so that nothing but the verb of a
	// command line changes.
	for _, name := range []string{"mode", "batch", "dry-run"} {
		_ = fs.MarkHidden(name)
	}
	fs.StringVarP(&f.output, "output", "o", "table", "`table|json|jsonl|csv`")
	fs.StringVar(&f.only, "only", "", "print only items that would `restore|replace|unchanged|fail`")
	fs.BoolVar(&f.items, "items", false, "print each item in the table, too (also --all)")
	aliases(fs, map[string]string{"actor": "by", "all": "items"})
	return cmd
}

func (c *cli) plan(cmd *cobra.Command, manifest string, f planFlags) error {
	cfg, err := c.config(cmd)
	if err != nil {
		return err
	}
	err = errors.Join(f.check(), oneOf("output", f.output, "table", "json", "jsonl", "csv"),
		oneOf("only", f.only, "", "restore", "replace", "unchanged", "fail"))
	if err != nil {
		return usage(cmd, err)
	}
	if f.actor == "" {
		f.actor = "plan" // nothing is done, on nobody's behalf
	}
	out := bufio.NewWriter(c.out)
	printed := &cli{out: out}
	p := c.newPlanning(cmd, cfg, manifest, f.batchRestoreFlags)
	p.only = restore.Verdict(f.only)
	switch f.output {
	case "json":
		err = printed.planJSON(p)
	case "jsonl":
		err = printed.planLines(p)
	case "csv":
		err = printed.planCSV(p)
	default:
		err = printed.planTable(p, f.items || f.only != "")
	}
	if err := errors.Join(err, out.Flush()); err != nil {
		return err
	}
	return p.verdict()
}

// dryRun tells what a command that submits would do: the total on stdout, as the
// predecessor did, the rest on stderr. Where a fleet does the work the archive may
// be out of reach from here.
func (c *cli) dryRun(cmd *cobra.Command, cfg *app.Config, manifest string, f batchRestoreFlags, fleet bool) error {
	p := c.newPlanning(cmd, cfg, manifest, f)
	err := p.each(func(restore.PlanItem) error { return nil })
	switch {
	case fleet && fault.Is(err, schemas.CodeArchiveDown):
		c.say("Only the manifest was checked, because the archive is out of reach from here: %v", err)
	case err != nil:
		return err
	default:
		p.text(c.err)
	}
	if p.invalid != nil {
		return p.invalid
	}
	if _, err := fmt.Fprintf(c.out, "{\n  \"total\": %d\n}\n", p.totals.Items); err != nil {
		return err
	}
	return p.verdict()
}

// planning is one run of a plan.
type planning struct {
	c        *cli
	cmd      *cobra.Command
	cfg      *app.Config
	manifest string
	flags    batchRestoreFlags
	only     restore.Verdict // of the items that are printed; empty for all

	// What is known after each.
	totals   app.PlanTotals
	failures map[schemas.Code][]restore.PlanItem // the first of each code
	invalid  error                               // that rows are invalid
}

func (c *cli) newPlanning(cmd *cobra.Command, cfg *app.Config, manifest string, f batchRestoreFlags) *planning {
	return &planning{c: c, cmd: cmd, cfg: cfg, manifest: manifest, flags: f, failures: map[schemas.Code][]restore.PlanItem{}}
}

// each plans, and calls item for each item that is to be printed.
func (p *planning) each(item func(restore.PlanItem) error) error {
	rejects, err := p.c.newRejects(p.flags.rejects)
	if err != nil {
		return err
	}
	shown := newProgress(p.c.err)
	p.totals, err = app.Plan(p.cmd.Context(), p.cfg, app.PlanOptions{
		BatchOptions: p.flags.options(p.c, p.manifest, rejects, shown),
		Planned:      shown.planned,
		Item: func(d restore.PlanItem) error {
			if d.Verdict == restore.VerdictFail && len(p.failures[d.Code]) < planSamples {
				p.failures[d.Code] = append(p.failures[d.Code], d)
			}
			if p.only != "" && p.only != d.Verdict {
				return nil
			}
			return item(d)
		},
	})
	shown.finish()
	if _, invalid := errors.AsType[*app.InvalidManifestError](err); invalid && p.totals.Items > 0 {
		p.invalid, err = err, nil
	}
	return errors.Join(err, rejects.close())
}

// verdict is what the exit code says: that rows are invalid, or that items would
// fail, of which everything was said.
func (p *planning) verdict() error {
	if p.invalid == nil && p.totals.Fail > 0 {
		return &codeError{code: exitUsage}
	}
	return p.invalid
}

// planned tells how far a plan is.
func (p *progress) planned(done, total int64) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.line("%d of %d items planned", done, total)
}

// planJSON prints one JSON object: {"items": […], "totals": {…}}.
func (c *cli) planJSON(p *planning) error {
	between := "{\n  \"items\": [\n    "
	err := p.each(func(d restore.PlanItem) error {
		b, err := json.MarshalIndent(d, "    ", "  ")
		if err == nil {
			_, err = fmt.Fprintf(c.out, "%s%s", between, b)
		}
		between = ",\n    "
		return err
	})
	if err != nil {
		return err
	}
	end := "\n  ]"
	if between[0] == '{' {
		end = "{\n  \"items\": []"
	}
	b, err := json.MarshalIndent(p.totals, "  ", "  ")
	if err == nil {
		_, err = fmt.Fprintf(c.out, "%s,\n  \"totals\": %s\n}\n", end, b)
	}
	return err
}

// planLines prints an object a line, which says in "type" what it is: items, and
// the totals at the end.
func (c *cli) planLines(p *planning) error {
	err := p.each(func(d restore.PlanItem) error {
		return c.jsonLine(struct {
			Type string `json:"type"`
			restore.PlanItem
		}{"item", d})
	})
	if err != nil {
		return err
	}
	return c.jsonLine(struct {
		Type string `json:"type"`
		app.PlanTotals
	}{"totals", p.totals})
}

// planCSV prints the items, so that they can be submitted as a manifest.
func (c *cli) planCSV(p *planning) error {
	w := csv.NewWriter(c.out)
	err := w.Write([]string{
		"tombstone", "output", "actor", "index", "verdict", "target_state", "found", "bytes_state", "size", "sha256", "code", "reason", "target",
	})
	if err != nil {
		return err
	}
	err = p.each(func(d restore.PlanItem) error {
		return w.Write([]string{
			d.Tombstone, d.Output, d.Actor, strconv.FormatInt(d.Index, 10), string(d.Verdict), string(d.TargetState), strconv.FormatBool(d.Found),
			string(d.BytesState), strconv.FormatInt(d.Size, 10), d.SHA256, string(d.Code), d.Reason, d.Target,
		})
	})
	w.Flush()
	return errors.Join(err, w.Error())
}

// planTable prints the totals, and before them the items if asked for.
func (c *cli) planTable(p *planning, items bool) (err error) {
	if items {
		terr := c.table("INDEX VERDICT TARGET BYTES SIZE CODE TOMBSTONE OUTPUT REASON", func(row func(...any)) {
			err = p.each(func(d restore.PlanItem) error {
				row(d.Index, d.Verdict, d.TargetState, d.BytesState, d.Size, d.Code, d.Tombstone, d.Output, d.Reason)
				return nil
			})
		})
		err = errors.Join(err, terr)
	} else {
		err = p.each(func(restore.PlanItem) error { return nil })
	}
	if err != nil {
		return err
	}
	if items {
		_, _ = fmt.Fprintln(c.out)
	}
	p.text(c.out)
	return nil
}

// text tells the totals.
func (p *planning) text(w io.Writer) {
	t := &p.totals
	line := func(format string, args ...any) { _, _ = fmt.Fprintln(w, printable(fmt.Sprintf(format, args...))) }
	line("Manifest   %s: %d rows, %d invalid", t.Manifest, t.Rows, t.Invalid)
	line("Archive    %s", t.Archive)
	line("Root       %s, overwrite %s", t.Root, t.Overwrite)
	line("Items      %d: %d to restore, %d to replace, %d unchanged, %d would fail", t.Items, t.Restore, t.Replace, t.Unchanged, t.Fail)
	room := ""
	if t.FreeBytes != nil {
		room = fmt.Sprintf("; there is room for %s", bytesText(*t.FreeBytes))
	}
	line("To write   %s%s", bytesText(t.Bytes), room)
	if e := t.Estimate; e != nil {
		line("Estimate   %s, at the %.0f items/s and %s/s of the last batches (%d)", takes(e.Seconds), e.ItemsPerSecond, bytesText(int64(e.BytesPerSecond)), e.Batches)
	}
	for _, note := range t.Notes {
		line("Note       %s", note)
	}
	for _, i := range schemas.Codes() {
		samples := p.failures[i.Code]
		if len(samples) == 0 {
			continue
		}
		n := t.FailedByCode[i.Code]
		line("Fails      %d %s: %s", n, i.Code, i.Cause)
		for _, d := range samples {
			line("           %s -> %s: %s", d.Tombstone, d.Output, d.Reason)
		}
		if more := n - int64(len(samples)); more > 0 {
			line("           … and %d more", more)
		}
	}
	if t.Fail > int64(0) {
		line("All of them: %s plan … --only fail", cmdName(p.c))
	}
}

// takes is an estimated time for people.
func takes(seconds float64) string {
	if seconds < 1 {
		return "less than a second"
	}
	return "about " + (time.Duration(math.Ceil(seconds)) * time.Second).String()
}
