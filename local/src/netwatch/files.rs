//! The files of the laptop's resolver, watched for changes.

use std::future::pending;
use std::path::PathBuf;

use futures_util::future::select_all;
use gh_net_common::file_watch::FileWatch;

/// Watches files.
#[derive(Debug)]
pub(super) struct Files(Vec<File>);

#[derive(Debug)]
struct File {
    path: PathBuf,
    /// `None` if it can't be watched.
    watch: Option<FileWatch>,
}

impl File {
    fn new(path: PathBuf) -> Self {
        let watch = FileWatch::new(&path)
            .inspect_err(|error| tracing::debug!(%error, path = %path.display(), "can't watch a file"))
            .ok();
        Self { path, watch }
    }

    async fn event(&mut self) {
        match &mut self.watch {
            // A watch that has failed is an event, too, after which there is another one or none.
            Some(watch) => drop(watch.event().await),
            None => pending().await,
        }
    }
}

impl Files {
    /// Begins to watch, within a tokio runtime. Missing files are noticed when they appear.
    pub(super) fn new(paths: Vec<PathBuf>) -> Self {
        Self(paths.into_iter().map(File::new).collect())
    }

    /// Waits until something happens to one of them. Cancel safe.
    pub(super) async fn event(&mut self) {
        let Self(files) = self;
        if files.is_empty() {
            return pending().await;
        }
        let ((), index, _) = select_all(files.iter_mut().map(|file| Box::pin(file.event()))).await;
        if let Some(file) = files.get_mut(index) {
            *file = File::new(std::mem::take(&mut file.path));
        }
    }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::time::Duration;

    use tokio::time::timeout;

    use super::*;

    #[tokio::test]
    async fn each_of_several_files_is_noticed_again_and_again() {
        let folder = tempfile::tempdir().unwrap();
        let paths = ["resolv.conf", "hosts"].map(|name| folder.path().join(name));
        let mut files = Files::new(paths.to_vec());
        for path in paths.iter().chain(&paths) {
            fs::write(path, "changed").unwrap();
            timeout(Duration::from_secs(10), files.event()).await.expect("an event");
            // Those of the same change.
            while timeout(Duration::from_millis(50), files.event()).await.is_ok() {}
        }
    }

    #[tokio::test(start_paused = true)]
    async fn without_files_nothing_happens() {
        assert!(timeout(Duration::from_secs(10), Files::new(vec![]).event()).await.is_err());
    }
}
