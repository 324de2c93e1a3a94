package main

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"strings"

	"github.com/spf13/cobra"

	"github.com/exhume/exhume/internal/app"
	"github.com/exhume/exhume/internal/archive"
)

func (c *cli) storeCommand() *cobra.Command {
	var o app.StoreOptions
	var metadata []string
	var output string
	cmd := &cobra.Command{
		Use:     "store REPO PATH...",
		GroupID: groupArchive,
		Short:   "Store files and directories in the archive",
		Long: `Store files, and all regular files below directories, in the archive, which is
created where there is none. Directories named .git, .exhume and .codex are left
out. The same content is stored once, however many items share it.

Content that was purged from the archive is refused: storing it again would bring
every item back that shares it. --revive does it all the same.`,
		Example: `  exhume store acme/app src/old.go --by ops --reason legacy
  exhume store acme/app docs src --by ops --tag release-1 --manifest stored.jsonl
  exhume store acme/app contract.pdf --by legal --kind doc --metadata legal_hold=true`,
		Args: func(cmd *cobra.Command, args []string) error {
			if len(args) < 2 {
				return usage(cmd, errors.New("want REPO and at least one PATH"))
			}
			return nil
		},
		RunE: func(cmd *cobra.Command, args []string) error {
			if err := oneOf("output", output, "json", "name", "none"); err != nil {
				return usage(cmd, err)
			}
			o.Item.Repo, o.Paths = args[0], args[1:]
			return c.store(cmd, o, metadata, output)
		},
	}
	fs := cmd.Flags()
	fs.StringVar(&o.Item.By, "by", "", "store on behalf of this `actor` (required)")
	fs.StringVar(&o.Item.Reason, "reason", "dead", "why it is archived: `dead|pruned|legacy|replaced`")
	fs.StringVar(&o.Item.Commit, "commit", "HEAD", "the `commit` that the files are of; HEAD asks git")
	fs.StringVar(&o.Item.Kind, "kind", "code", "what it is: `code|doc|asset`")
	fs.StringVar(&o.Item.Language, "language", "", "programming `language`")
	fs.StringVar(&o.Item.MIME, "mime", "", "MIME `type` (default application/octet-stream)")
	fs.StringArrayVar(&o.Item.Tags, "tag", nil, "a `tag`; may be repeated")
	fs.StringArrayVar(&metadata, "metadata", nil, "`key=value` kept with the item; may be repeated")
	fs.BoolVar(&o.Revive, "revive", false, "allow storing content that was purged")
	fs.StringVar(&o.Manifest, "manifest", "", "write a manifest (JSON lines) that restores what is stored to this `file`")
	fs.StringVarP(&output, "output", "o", "json", "print of each item to stdout: `json|name|none`")
	return cmd
}

func (c *cli) store(cmd *cobra.Command, o app.StoreOptions, metadata []string, output string) error {
	if o.Item.By == "" {
		return usage(cmd, errors.New("--by is required: on whose behalf is it stored?"))
	}
	var err error
	if o.Item.Metadata, err = pairs(metadata); err != nil {
		return usage(cmd, err)
	}
	if strings.EqualFold(o.Item.Commit, "HEAD") {
		if o.Item.Commit, err = gitHead(cmd); err != nil {
			return usage(cmd, err)
		}
	}
	cfg, err := c.config(cmd)
	if err != nil {
		return err
	}
	o.Stored = func(s archive.Stored) error {
		switch {
		case output == "name":
			_, err := fmt.Fprintln(c.out, s.Tombstone)
			return err
		case output == "none":
			return nil
		case len(o.Paths) == 1 && isFile(o.Paths[0]):
			return c.json(s) // what scripts of the predecessor read
		}
		return c.jsonLine(s)
	}
	o.Failed = func(path string, err error) { c.say("%s: %v", path, err) }
	n, err := app.Store(cmd.Context(), cfg, o)
	if err != nil {
		return err
	}
	if n.Stored > 1 || n.Failed > 0 {
		c.say("Stored %d items (%s); %d shared content that was there; %d not stored.", n.Stored, bytesText(n.Bytes), n.Reused, n.Failed)
	}
	switch {
	case n.Failed > 0 && n.Stored > 0:
		return &codeError{code: exitPartial}
	case n.Failed > 0:
		return &codeError{code: exitError}
	}
	return nil
}

func pairs(list []string) (map[string]string, error) {
	m := map[string]string{}
	for _, p := range list {
		k, v, ok := strings.Cut(p, "=")
		if !ok || k == "" {
			return nil, fmt.Errorf("--metadata %q: want key=value", p)
		}
		m[k] = v
	}
	return m, nil
}

func gitHead(cmd *cobra.Command) (string, error) {
	out, err := exec.CommandContext(cmd.Context(), "git", "rev-parse", "HEAD").Output()
	if err != nil {
		return "", fmt.Errorf("cannot resolve HEAD (%w): run it inside a git repository with a commit, or give --commit", err)
	}
	return strings.TrimSpace(string(out)), nil
}

func isFile(path string) bool {
	st, err := os.Stat(path)
	return err == nil && st.Mode().IsRegular()
}
