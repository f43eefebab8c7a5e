package jobfile_test

import (
	"os"
	"path/filepath"
	"runtime"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/keywright/keywright/rotation"
	"github.com/keywright/keywright/rotation/jobfile"
)

// TestOpen_database refuses a second journal beside that of a database.
func TestOpen_database(t *testing.T) {
	t.Parallel()
	for journal, want := range map[string]struct {
		in  bool
		dir string
	}{
		"":                        {dir: ".keywright"},
		"journal: database":       {in: true},
		`journal: "database"`:     {in: true},
		"journal: ./database":     {dir: "database"},
		"journal: database/":      {dir: "database"},
		"journal: Database":       {dir: "Database"},
		"journal: state/database": {dir: "state/database"},
	} {
		dir := t.TempDir()
		f := load(t, dir, paired(journal))
		assert.Equal(t, want.in, f.InDatabase(), journal)
		engine, err := f.Open()
		if want.in {
			require.EqualError(t, err, f.Path+": its journal is in a database; keywright-rotator works it; leave its jobs to keywright-rotator, or, if you mean a directory of that name, write journal: ./database", journal)
			assertDatabaseError(t, err, f.Path, "")
			assert.Nil(t, engine)
			assert.Empty(t, f.JournalDir(), journal)
		} else {
			require.NoError(t, err, journal)
			assert.Equal(t, filepath.Join(dir, want.dir), f.JournalDir(), journal)
		}

		// It makes no difference that one is beside the file if the file says so.
		beside := filepath.Join(dir, jobfile.DatabaseName)
		write(t, beside, "")
		if _, err = f.Open(); want.in {
			assertDatabaseError(t, err, f.Path, "")
			continue
		}
		require.EqualError(t, err, f.Path+": "+beside+" is the journal of keywright-rotator; with a second journal, a token that is in use could be retired; "+
			"leave the jobs to keywright-rotator, or, if it has stopped for good with no rotation under way, move that file elsewhere", journal)
		assertDatabaseError(t, err, f.Path, beside)

		require.NoError(t, os.Rename(beside, beside+".old"))
		_, err = f.Open()
		require.NoError(t, err, journal)
		entries, err := os.ReadDir(dir)
		require.NoError(t, err)
		assert.Len(t, entries, 2, "nothing was made")
	}
}

// assertDatabaseError looks at an error that Open has returned.
func assertDatabaseError(t *testing.T, err error, path, database string) {
	t.Helper()
	require.ErrorIs(t, err, rotation.ErrRefused)
	require.NotErrorIs(t, err, rotation.ErrJournal)
	var refused *jobfile.DatabaseError
	require.ErrorAs(t, err, &refused)
	assert.Equal(t, path, refused.Path)
	assert.Equal(t, database, refused.Database)
	assert.NotEmpty(t, refused.Message)
	assert.NotEmpty(t, refused.Instead)
}

// TestOpen_databaseOfOther refuses with a journal of the file's own, and with a
// database that is none, cannot be looked at, or is a link to nowhere.
func TestOpen_databaseOfOther(t *testing.T) {
	t.Parallel()
	for name, beside := range map[string]func(path string) error{
		"directory":       func(path string) error { return os.Mkdir(path, 0o700) },
		"link to nowhere": func(path string) error { return os.Symlink("/nowhere/at/all.db", path) },
	} {
		dir := t.TempDir()
		f := load(t, dir, paired("journal: '"+t.TempDir()+"'"))
		if err := beside(filepath.Join(dir, jobfile.DatabaseName)); err != nil {
			t.Skip(err)
		}
		_, err := f.Open()
		assert.ErrorIs(t, err, rotation.ErrRefused, name)
	}
	f, err := jobfile.Parse(filepath.Join(t.TempDir(), "none", "k.yaml"), []byte(paired("")))
	require.NoError(t, err)
	_, err = f.Open()
	require.NoError(t, err, "a file that was never there")

	if runtime.GOOS != "windows" {
		notDir := filepath.Join(t.TempDir(), "file")
		write(t, notDir, "")
		f, err = jobfile.Parse(filepath.Join(notDir, "k.yaml"), []byte(paired("")))
		require.NoError(t, err)
		_, err = f.Open()
		require.ErrorContains(t, err, "jobfile: ", "what cannot be known is not taken to be well")
	}
}

// TestOpen_databaseBehindLink looks beside the link and beside the file.
func TestOpen_databaseBehindLink(t *testing.T) {
	t.Parallel()
	for _, where := range []string{"link", "real"} {
		dir := t.TempDir()
		for _, sub := range []string{"link", "real", "journal"} {
			require.NoError(t, os.Mkdir(filepath.Join(dir, sub), 0o700))
		}
		write(t, filepath.Join(dir, "real", "jobs.yaml"), paired("journal: '"+filepath.Join(dir, "journal")+"'"))
		path := filepath.Join(dir, "link", "keywright.yaml")
		if err := os.Symlink("../real/jobs.yaml", path); err != nil {
			t.Skip(err)
		}
		f, err := jobfile.Load(path)
		require.NoError(t, err)
		_, err = f.Open()
		require.NoError(t, err)
		write(t, filepath.Join(dir, where, jobfile.DatabaseName), "")
		_, err = f.Open()
		require.ErrorIs(t, err, rotation.ErrRefused, where)
	}
}

// TestLoad_linkAndDatabase reads a ConfigMap that says journal: database.
func TestLoad_linkAndDatabase(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	write(t, filepath.Join(dir, "real.yaml"), paired("journal: database"))
	path := filepath.Join(dir, "keywright.yaml")
	if err := os.Symlink("real.yaml", path); err != nil {
		t.Skip(err)
	}
	f, err := jobfile.Load(path)
	require.NoError(t, err)
	assert.True(t, f.InDatabase())
	assert.Empty(t, f.JournalDir())
	_, err = f.Open()
	require.ErrorIs(t, err, rotation.ErrRefused)

	write(t, filepath.Join(dir, "real.yaml"), paired("journal: ./database"))
	_, err = jobfile.Load(path)
	require.EqualError(t, err, path+": is a symbolic link; say where the journal is, with journal: and an absolute path")
}
