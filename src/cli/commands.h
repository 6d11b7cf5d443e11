// The commands, each in the file of its name. Arguments as main's, argv[0] being the command's name; the exit code back.
#pragma once

namespace blobcache::cli {

int mount_command(int argc, char** argv);
int umount_command(int argc, char** argv);
int run_command(int argc, char** argv);
int status_command(int argc, char** argv);
int top_command(int argc, char** argv);
int warm_command(int argc, char** argv);
int stat_command(int argc, char** argv);
int path_command(int argc, char** argv);
int put_command(int argc, char** argv);
int get_command(int argc, char** argv);
int has_command(int argc, char** argv);
int remove_command(int argc, char** argv);
int doctor_command(int argc, char** argv);
int config_command(int argc, char** argv);
int version_command(int argc, char** argv);
int report_command(int argc, char** argv);
int generate_command(int argc, char** argv);

}  // namespace blobcache::cli
