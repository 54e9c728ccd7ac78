//! `import`: a compose file as specs, shown or applied, with a word on everything that has no place there.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use hostler_model::spec::{WorkloadSpec, near_name};
use hostler_runtime::RuntimeError;
use hostler_runtime::compose::{FileSet, Programs, resolve};

use super::Remote;
use super::apply::{Applying, submit};
use crate::args::{ImportArgs, ImportForm, ImportOutput, OutputArgs, OutputForm};
use crate::failure::Failure;
use crate::import::{self, Imported};
use crate::settings::Environment;
use crate::status::ExitStatus;

pub(crate) async fn import(
    remote: &Remote<'_>,
    environment: &Environment,
    args: ImportArgs,
) -> Result<ExitStatus, Failure> {
    let imported = match args.form {
        ImportForm::Compose => project(environment, &args)?,
        ImportForm::Containers => containers(environment, &args).await?,
    };
    if imported.specs.is_empty() {
        let sentence = "nothing of the file can run here";
        return Err(Failure::failed(sentence, "see to what is listed").with_details(imported.notes));
    }
    if args.apply {
        let applying = Applying::new((false, false), &args.wait, &OutputArgs::default());
        tell(remote, &imported.notes);
        return submit(remote, vec![text(&imported.specs)?], applying).await;
    }
    show(remote, args.output, &imported.specs)?;
    tell(remote, &imported.notes);
    Ok(ExitStatus::Done)
}

/// The file as it is.
fn project(environment: &Environment, args: &ImportArgs) -> Result<Imported, Failure> {
    if !args.over.is_empty() {
        return Err(Failure::usage(
            "a project is one file, and several are named",
            "take a container for each service, with `--as containers`, or put the files together",
        ));
    }
    let text = read(&args.file)?;
    let beside = args.file.with_file_name(".env");
    let usual = beside.is_file().then_some(beside);
    let mut variables = BTreeMap::new();
    let named = args.env_files.iter().cloned();
    for path in usual
        .filter(|_| args.env_files.is_empty())
        .into_iter()
        .chain(named)
    {
        variables.extend(of_env_file(&read(&path)?));
    }
    // As compose has it, what the user's shell says counts more.
    variables.extend(environment.of_user());
    Ok(import::project(
        &name(args),
        &text,
        &variables,
        &args.profiles,
    )?)
}

/// The services, as compose makes them of the files.
async fn containers(environment: &Environment, args: &ImportArgs) -> Result<Imported, Failure> {
    // So that a file that is not there is told by us, the same each time.
    read(&args.file)?;
    let files: Vec<PathBuf> = std::iter::once(&args.file)
        .chain(&args.over)
        .cloned()
        .collect();
    let files = FileSet {
        files: &files,
        env_files: &args.env_files,
        profiles: &args.profiles,
    };
    let resolved = resolve(&Programs::default(), &environment.of_user(), files).await;
    let resolved = resolved.map_err(of_compose)?;
    Ok(import::containers(&name(args), &resolved, &args.profiles)?)
}

fn of_compose(error: RuntimeError) -> Failure {
    let advice = match error.code() {
        "compose-missing" => {
            "compose reads the file for `--as containers`; without it, `--as compose` works"
        }
        _ => "see that compose itself takes the file",
    };
    Failure {
        code: Some(error.code().to_owned()),
        ..Failure::failed(error, advice)
    }
}

/// As compose names a project: by a word, by the file, or after the file's directory.
fn name(args: &ImportArgs) -> String {
    let of_file = || {
        let text = read(&args.file).ok()?;
        let line = text.lines().find_map(|line| line.strip_prefix("name:"))?;
        Some(line.trim().trim_matches(['"', '\'']).to_owned())
    };
    let of_directory = || {
        let path = std::path::absolute(&args.file).ok()?;
        Some(path.parent()?.file_name()?.to_string_lossy().into_owned())
    };
    let found = args.name.clone().or_else(of_file).or_else(of_directory);
    near_name(&found.unwrap_or_default())
}

fn read(path: &Path) -> Result<String, Failure> {
    let unreadable = |error| {
        Failure::failed(
            format!("cannot read {}: {error}", path.display()),
            "name a readable file",
        )
    };
    std::fs::read_to_string(path).map_err(unreadable)
}

/// Lines of `NAME=value`; quotes around a whole value are none of it.
fn of_env_file(text: &str) -> BTreeMap<String, String> {
    let variable = |line: &str| {
        let line = line.trim();
        let (name, value) = line
            .strip_prefix("export ")
            .unwrap_or(line)
            .split_once('=')?;
        let value = value.trim();
        let inner = |quote| value.strip_prefix(quote)?.strip_suffix(quote);
        let value = inner('"').or_else(|| inner('\'')).unwrap_or(value);
        (!name.starts_with('#')).then(|| (name.trim().to_owned(), value.to_owned()))
    };
    text.lines().filter_map(variable).collect()
}

pub(super) fn show(
    remote: &Remote<'_>,
    form: ImportOutput,
    specs: &[WorkloadSpec],
) -> Result<(), Failure> {
    match form {
        ImportOutput::Json => remote.printer.document(OutputForm::Json, &specs),
        ImportOutput::Yaml => {
            remote.printer.text(&text(specs)?);
            Ok(())
        }
    }
}

/// The specs as one text that `apply` takes.
pub(super) fn text(specs: &[WorkloadSpec]) -> Result<String, Failure> {
    let unwritable = |error| {
        Failure::failed(
            format!("cannot write the spec: {error}"),
            "use `--output json`",
        )
    };
    let specs: Result<Vec<String>, Failure> = specs
        .iter()
        .map(|spec| import::yaml(spec).map_err(unwritable))
        .collect();
    Ok(specs?.join("---\n"))
}

pub(super) fn tell(remote: &Remote<'_>, notes: &[String]) {
    for note in notes {
        remote.printer.talk(&format!("note: {note}"));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_of_variables_is_read_line_by_line() {
        let read = of_env_file("# c\nA=1\nexport B = \"x y\" \n\nC='z'\nD=a=b\n#E=1\n");
        let pairs: Vec<(&str, &str)> = read.iter().map(|(a, b)| (a.as_str(), b.as_str())).collect();
        assert_eq!(pairs, [("A", "1"), ("B", "x y"), ("C", "z"), ("D", "a=b")]);
    }
}
